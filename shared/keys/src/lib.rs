//! Private keys of publishers and servers: ed25519 by the library that TLS brings along, and the files they are kept in.
//! Apart from `shared`, which holds no crypto and reads no files.

mod ed25519;
mod file;
mod pem;

pub use ed25519::{BadKey, SigningKey, verify};
pub use file::{FileError, create_private, read_credential, read_private};
pub use pem::{Passphrase, PemError, is_sealed, open, public_from_pem, seal};
