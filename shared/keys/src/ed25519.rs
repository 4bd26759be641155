//! Ed25519: the only file that signs and verifies.

use aws_lc_rs::{
    encoding::AsBigEndian,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use whimbrel_shared::tuf::{PublicKey, key::SIGNATURE_BYTES};
use zeroize::Zeroizing;

/// A key that signs. It is never printed, and wiped when it is dropped.
pub struct SigningKey(Ed25519KeyPair);

/// Bytes that are no private key of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no ed25519 private key")]
pub struct BadKey;

impl SigningKey {
    /// From the system's random source.
    pub fn generate() -> Self {
        Self(Ed25519KeyPair::generate().expect("the random source cannot fail once it is seeded"))
    }

    /// From the 32 bytes that everything else follows from; for tests that need the same key each time.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed"))
    }

    /// From PKCS#8, version 1 or 2, as `openssl genpkey -algorithm ed25519` writes it.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, BadKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self).map_err(|_| BadKey)
    }

    /// As PKCS#8, version 1 (RFC 8410, 7).
    pub(crate) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        const HEAD: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        let seed = self.0.seed().expect("a private key has a seed");
        let seed = seed.as_be_bytes().expect("a seed is 32 bytes");
        let mut der = Zeroizing::new(Vec::with_capacity(48));
        der.extend_from_slice(&HEAD);
        der.extend_from_slice(seed.as_ref());
        der
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let bytes: [u8; 32] = self.0.public_key().as_ref().try_into().expect("an ed25519 public key has 32 bytes");
        PublicKey::from_bytes(bytes)
    }

    /// The signature over `bytes`.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(bytes).as_ref().try_into().expect("an ed25519 signature has 64 bytes")
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public().id().short())
    }
}

/// Whether the owner of `key` signed `bytes`. A [`whimbrel_shared::tuf::Verify`].
pub fn verify(key: &PublicKey, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(bytes, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_key_and_its_bytes_alone() {
        // RFC 8032, 7.1, test 2.
        let seed = whimbrel_shared::tuf::key::from_hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SigningKey::from_seed(&seed);
        assert_eq!(key.public().to_string(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = key.sign(&[0x72]);
        assert_eq!(whimbrel_shared::tuf::key::to_hex(&signature)[..32], *"92a009a9f0d4cab8720e820b5f642540");
        assert!(verify(&key.public(), &[0x72], &signature));
        assert!(!verify(&key.public(), &[0x73], &signature));
        assert!(!verify(&SigningKey::generate().public(), &[0x72], &signature));
    }

    #[test]
    fn a_key_reads_back_what_it_wrote_and_does_not_print_itself() {
        let key = SigningKey::generate();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(SigningKey::from_pkcs8(b"x").unwrap_err(), BadKey);
        let seed = whimbrel_shared::tuf::key::to_hex(&key.to_pkcs8()[16..]);
        assert!(!format!("{key:?}").contains(&seed));
    }
}
