//! Private keys as text: PKCS#8 in PEM, encrypted as RFC 8018 has it (PBES2: PBKDF2 with HMAC-SHA-256, AES-256-CBC), so that
//! `openssl pkey` reads them too. The container is `pkcs8`'s; the ciphers are those that TLS brought along, at no cost in size.

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey},
    iv::FixedLength,
    pbkdf2, rand,
};
use pkcs8::{
    EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument, SubjectPublicKeyInfoRef,
    der::{Decode, Document},
    pkcs5::{
        EncryptionScheme,
        pbes2::{self, Pbkdf2Prf},
    },
};
use whimbrel_shared::{
    remedy::{Remedy, here},
    tuf::PublicKey,
};
use zeroize::Zeroizing;

use crate::ed25519::SigningKey;

const SEALED: &str = "ENCRYPTED PRIVATE KEY";
const OPEN: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// What OWASP asks of PBKDF2 with HMAC-SHA-256 since 2023: a quarter of a second of a small machine.
const ITERATIONS: u32 = 600_000;
/// A file that asks for more is an attack on the reader's time.
const MAX_ITERATIONS: u32 = 20_000_000;

/// What opens a file. Wiped when it is dropped, and never printed.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// None of an empty text: it would protect nothing.
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Why a text gave no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Not PEM of a private key.
    #[error("this is no private key in PEM (PKCS#8)")]
    NotAKey,
    /// A key of another kind.
    #[error("the private key is none of ed25519")]
    OtherKind,
    /// Encrypted, and nobody said with what.
    #[error("the private key is encrypted, and there is no passphrase")]
    NoPassphrase,
    /// Encrypted with something else.
    #[error("the passphrase does not open the private key")]
    WrongPassphrase,
    /// Encrypted in a way that is not read here.
    #[error("the private key is encrypted in a way that is not read here; it is PBES2 with PBKDF2, HMAC-SHA-256 and AES-256-CBC")]
    OtherCipher,
    /// Not encrypted, where it has to be.
    #[error("the private key is not encrypted")]
    NotSealed,
}

impl PemError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NotAKey | Self::OtherKind => here("make one with `whimbrel keys create`, or with `openssl genpkey -algorithm ed25519`"),
            Self::NoPassphrase => here("give the passphrase: at the prompt, by --passphrase-fd, or in WHIMBREL_KEY_PASSPHRASE"),
            Self::WrongPassphrase => here("give the passphrase that the key was made with"),
            Self::OtherCipher | Self::NotSealed => {
                here("encrypt it: `openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -iter 600000 -in KEY -out NEW`")
            }
        }
    }
}

/// Whether a text is an encrypted private key.
pub fn is_sealed(pem: &str) -> bool {
    pem.contains(&format!("-----BEGIN {SEALED}-----"))
}

/// The key as text that only `passphrase` opens.
pub fn seal(key: &SigningKey, passphrase: &Passphrase) -> Zeroizing<String> {
    let (mut salt, mut iv) = ([0u8; 16], [0u8; 16]);
    rand::fill(&mut salt).expect("the random source cannot fail once it is seeded");
    rand::fill(&mut iv).expect("the random source cannot fail once it is seeded");
    let mut data = Zeroizing::new(key.to_pkcs8().to_vec());
    let secret = derive(passphrase, &salt, ITERATIONS);
    let cipher = UnboundCipherKey::new(&AES_256, secret.as_slice()).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
    let sealing = cipher.expect("the key has the length of the cipher");
    sealing.less_safe_encrypt(&mut *data, EncryptionContext::Iv128(FixedLength::from(iv))).expect("a fresh key encrypts 48 bytes");
    let parameters = pbes2::Parameters::pbkdf2_sha256_aes256cbc(ITERATIONS, &salt, &iv).expect("the parameters are ours");
    let sealed = EncryptedPrivateKeyInfo { encryption_algorithm: parameters.into(), encrypted_data: &data };
    let document = SecretDocument::try_from(sealed).expect("a hundred bytes have a DER form");
    document.to_pem(SEALED, LineEnding::LF).expect("the label is ours")
}

impl SigningKey {
    /// The key as text that anybody can read who has it: for a file of mode 0600, or a vault.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let document = PrivateKeyInfo::try_from(self.to_pkcs8().as_slice()).and_then(SecretDocument::try_from).expect("our own DER");
        document.to_pem(OPEN, LineEnding::LF).expect("the label is ours")
    }
}

/// The key of a text; `passphrase` opens it where it is encrypted ([`is_sealed`]).
pub fn open(pem: &str, passphrase: Option<&Passphrase>) -> Result<SigningKey, PemError> {
    let (label, document) = SecretDocument::from_pem(pem.trim()).map_err(|_| PemError::NotAKey)?;
    if label == OPEN {
        return SigningKey::from_pkcs8(document.as_bytes()).map_err(|_| PemError::OtherKind);
    }
    if label != SEALED {
        return Err(PemError::NotAKey);
    }
    let sealed = EncryptedPrivateKeyInfo::from_der(document.as_bytes()).map_err(|_| PemError::OtherCipher)?;
    let EncryptionScheme::Pbes2(pbes2::Parameters { kdf: pbes2::Kdf::Pbkdf2(kdf), encryption: pbes2::EncryptionScheme::Aes256Cbc { iv } }) =
        sealed.encryption_algorithm
    else {
        return Err(PemError::OtherCipher);
    };
    if kdf.prf != Pbkdf2Prf::HmacWithSha256 || kdf.iteration_count > MAX_ITERATIONS || kdf.iteration_count == 0 {
        return Err(PemError::OtherCipher);
    }
    let passphrase = passphrase.ok_or(PemError::NoPassphrase)?;
    let secret = derive(passphrase, kdf.salt, kdf.iteration_count);
    let cipher = UnboundCipherKey::new(&AES_256, secret.as_slice()).and_then(PaddedBlockDecryptingKey::cbc_pkcs7);
    let opening = cipher.expect("the key has the length of the cipher");
    let mut data = Zeroizing::new(sealed.encrypted_data.to_vec());
    let plain = opening.decrypt(&mut data, DecryptionContext::Iv128(FixedLength::from(*iv))).map_err(|_| PemError::WrongPassphrase)?;
    // One wrong passphrase of 256 leaves padding that looks right; what is below it is no key then.
    SigningKey::from_pkcs8(plain).map_err(|_| PemError::WrongPassphrase)
}

/// The public key of a PEM text, as `openssl pkey -pubout` writes it: keys in hardware give no other.
pub fn public_from_pem(pem: &str) -> Option<PublicKey> {
    let (label, document) = Document::from_pem(pem.trim()).ok()?;
    let info = SubjectPublicKeyInfoRef::from_der(document.as_bytes()).ok()?;
    let ours = label == PUBLIC && info.algorithm.oid.to_string() == "1.3.101.112";
    let bytes = ours.then(|| info.subject_public_key.as_bytes()).flatten()?;
    Some(PublicKey::from_bytes(bytes.try_into().ok()?))
}

fn derive(passphrase: &Passphrase, salt: &[u8], iterations: u32) -> Zeroizing<[u8; 32]> {
    let iterations = NonZeroU32::new(iterations).expect("zero was refused");
    let mut secret = Zeroizing::new([0u8; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, passphrase.0.as_bytes(), secret.as_mut_slice());
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Passphrase> {
        Passphrase::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_alone() {
        let key = SigningKey::generate();
        let pem = seal(&key, &words("long and winding").unwrap());
        assert!(is_sealed(&pem));
        assert_eq!(open(&pem, words("long and winding").as_ref()).unwrap().public(), key.public());
        for wrong in ["", "Long and winding", "long and winding "] {
            assert!(matches!(open(&pem, words(wrong).as_ref()).unwrap_err(), PemError::WrongPassphrase | PemError::NoPassphrase), "{wrong:?}");
        }
        assert_eq!(open(&key.to_pem(), None).unwrap().public(), key.public());
        assert!(!is_sealed(&key.to_pem()));
        let mut changed = pem.replace('\n', "\u{0}");
        changed.truncate(80);
        assert_eq!(open(&changed, words("x").as_ref()).unwrap_err(), PemError::NotAKey);
    }

    #[test]
    fn a_key_that_openssl_made_and_sealed_is_read() {
        // openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -iter 2048
        let theirs = include_str!("../testdata/openssl.pem");
        let public = include_str!("../testdata/openssl.pub.pem");
        let key = open(theirs, words("whimbrel").as_ref()).unwrap();
        assert_eq!(Some(key.public()), public_from_pem(public));
        assert_eq!(public_from_pem(theirs), None);
    }
}
