//! Who calls: bearer tokens of the administrator and of service accounts.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::JournalError;

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// May do everything.
    Admin,
    /// May do what RoleBindings say.
    ServiceAccount {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
}

impl Caller {
    /// The user name that Kubernetes knows the caller by.
    #[must_use]
    pub fn user(&self) -> String {
        match self {
            Self::Admin => "kubernetes-admin".to_owned(),
            Self::ServiceAccount { namespace, name } => {
                format!("system:serviceaccount:{namespace}:{name}")
            }
        }
    }

    /// The groups of the caller.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        match self {
            Self::Admin => vec!["system:masters".into(), "system:authenticated".into()],
            Self::ServiceAccount { namespace, .. } => vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".into(),
            ],
        }
    }
}

/// The key that tokens are made with; it is kept, so that they stay valid.
pub struct SigningKey([u8; 32]);

impl SigningKey {
    /// Reads the key of a directory, or makes one.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        let path = directory.join("token.key");
        let failed = |source| JournalError::File { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => <[u8; 32]>::try_from(bytes).map(Self).map_err(|_| {
                failed(io::Error::new(io::ErrorKind::InvalidData, "the key has not 32 bytes"))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; 32] = rand::random();
                let next = directory.join("token.key.new");
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&next)
                    .map_err(failed)?;
                io::Write::write_all(&mut file, &key).map_err(failed)?;
                file.sync_all().map_err(failed)?;
                fs::rename(&next, &path).map_err(failed)?;
                Ok(Self(key))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The token of a caller.
    pub fn token(&self, caller: &Caller) -> String {
        let claim = match caller {
            Caller::Admin => "admin".to_owned(),
            Caller::ServiceAccount { namespace, name } => format!("{namespace}:{name}"),
        };
        let claim = URL_SAFE_NO_PAD.encode(claim);
        format!("{claim}.{}", URL_SAFE_NO_PAD.encode(self.mac(claim.as_bytes())))
    }

    /// Whose token it is, if it is one of ours.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        let (claim, signature) = token.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let expected = self.mac(claim.as_bytes());
        let differing =
            signature.iter().zip(&expected).fold(0, |sum, (left, right)| sum | (left ^ right));
        if signature.len() != expected.len() || differing != 0 {
            return None;
        }
        let claim = String::from_utf8(URL_SAFE_NO_PAD.decode(claim).ok()?).ok()?;
        Some(match claim.split_once(':') {
            None => Caller::Admin,
            Some((namespace, name)) => {
                Caller::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }
            }
        })
    }

    /// HMAC-SHA-256 (RFC 2104).
    fn mac(&self, message: &[u8]) -> [u8; 32] {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(self.0).for_each(|(padded, key)| *padded ^= key);
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_the_key_are_known() {
        let key = SigningKey([7; 32]);
        let account = Caller::ServiceAccount { namespace: "a".into(), name: "b".into() };
        for caller in [Caller::Admin, account] {
            assert_eq!(key.caller(&key.token(&caller)), Some(caller.clone()));
            assert_eq!(SigningKey([8; 32]).caller(&key.token(&caller)), None);
        }
        assert_eq!(key.caller("YWRtaW4."), None);
        assert_eq!(key.caller("nonsense"), None);
    }
}
