//! The settings of access: users, the keys of terminals' tokens, and rates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// Users by name, `[users.NAME]`.
pub type UserTable = BTreeMap<String, UserSettings>;

/// A user, `[users.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserSettings {
    /// The user's rules, separated by spaces, as for ACL SETUSER, without passwords. They are
    /// applied after `on +@connection`.
    pub rules: String,
    /// The argon2 hash of the user's password, as `strandline hash-password` prints it.
    pub password_hash: Option<Secret>,
    /// The common name of the client certificates that log in as this user.
    pub certificate: Option<String>,
}

impl UserSettings {
    /// Whether it is on, and its password is not checked.
    pub fn needs_no_login(&self) -> bool {
        let (mut is_on, mut is_checked) = (true, true);
        for rule in self.rules.split_whitespace() {
            match rule.to_ascii_lowercase().as_str() {
                "on" => is_on = true,
                "off" => is_on = false,
                "nopass" => is_checked = false,
                "resetpass" => is_checked = true,
                "reset" => (is_on, is_checked) = (false, true),
                _ => {}
            }
        }
        is_on && !is_checked
    }
}

/// The tokens of terminals, `[tokens]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSettings {
    /// The keys of which one must have signed a token. A token names its key by `kid`.
    pub keys: Vec<TokenKeySettings>,
    /// The audience (`aud`) that tokens must have, if it is set.
    pub audience: Option<String>,
    /// The issuer (`iss`) that tokens must have, if it is set.
    pub issuer: Option<String>,
}

/// A key of tokens, `[[tokens.keys]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKeySettings {
    /// The id by which tokens name it (`kid`).
    pub id: String,
    /// The algorithm of its signatures.
    pub algorithm: TokenAlgorithm,
    /// The key: the shared text of HS256, or the public key of `EdDSA` as PEM.
    #[serde(default)]
    pub key: Option<Secret>,
    /// A file with the key, in place of `key`.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// The algorithm of a token's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256: the issuer and the server have the same key.
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519: the server has the public key only.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The limits on commands per second, `[rates]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateSettings {
    /// Commands per second of one connection; 0: no limit.
    pub connection_per_second: u64,
    /// Commands that one connection may run at once.
    pub connection_burst: u64,
    /// Commands per second of all connections of one user, or of one token's user; 0: no limit.
    pub user_per_second: u64,
    /// Commands that the connections of one user may run at once.
    pub user_burst: u64,
}

impl Default for RateSettings {
    fn default() -> RateSettings {
        RateSettings {
            connection_per_second: 0,
            connection_burst: 1000,
            user_per_second: 0,
            user_burst: 1000,
        }
    }
}
