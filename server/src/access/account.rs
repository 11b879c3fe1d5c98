//! A user: a name, rules, and the passwords that were verified.
//!
//! A verified password is remembered as a keyed hash, with a key that exists in this process only,
//! so that a reconnect costs microseconds instead of an argon2 run. The user is replaced when its
//! rules change, and the memory with it.

use parking_lot::Mutex;
use ring::hmac;

use super::password::Hash;
use super::rules::Rules;

/// A user.
pub struct Account {
    /// A user that is removed and made again under the same name has another number.
    id: u64,
    name: String,
    rules: Rules,
    is_everything: bool,
    certificate: Option<String>,
    verified: Mutex<Vec<hmac::Tag>>,
}

impl Account {
    /// A user of these rules.
    pub fn new(id: u64, name: &str, rules: Rules, certificate: Option<String>) -> Account {
        let is_everything = rules.is_everything();
        let verified = Mutex::default();
        Account { id, name: name.to_owned(), rules, is_everything, certificate, verified }
    }

    /// The number that tells users of the same name apart.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether it may run everything on everything.
    pub fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// The common name of its client certificates.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// Whether the password was verified before.
    pub fn remembers(&self, password: &[u8], key: &hmac::Key) -> bool {
        let tags = self.verified.lock();
        tags.iter().any(|tag| hmac::verify(key, password, tag.as_ref()).is_ok())
    }

    /// Checks a password, and remembers it if it is right. Takes tens of milliseconds for each hash
    /// that is compared; `run` is called for each.
    pub fn verify(&self, password: &[u8], key: &hmac::Key, run: impl Fn()) -> bool {
        let is_right = |hash: &Hash| {
            run();
            hash.matches(password)
        };
        let found = self.rules.passwords.iter().any(is_right);
        // As many as there are passwords, since a right one is not verified twice.
        if found && !self.remembers(password, key) {
            self.verified.lock().push(hmac::sign(key, password));
        }
        found
    }
}
