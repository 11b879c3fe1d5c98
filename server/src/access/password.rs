//! Hashes of passwords: argon2id, as PHC strings. Hashing takes tens of milliseconds and 19 MiB on
//! purpose, so it runs on threads that may block, few at a time.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};

/// The most memory of one hash, in KiB: a quarter of a gibibyte. A hash comes from an operator, but
/// a typing error must not take the machine's memory.
const MOST_KIB: u32 = 256 * 1024;

/// The most passes and lanes of one hash.
const MOST_PASSES: u32 = 64;

/// A hash of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(String);

impl Hash {
    /// Hashes a password with a new salt. Takes tens of milliseconds.
    pub fn of(password: &[u8]) -> Result<Hash, String> {
        let made: PasswordHash = Argon2::default()
            .hash_password(password)
            .map_err(|error| format!("the password cannot be hashed: {error}"))?;
        Ok(Hash(made.to_string()))
    }

    /// A PHC string, as `strandline hash-password` prints it.
    pub fn parse(text: &str) -> Result<Hash, String> {
        let advice = "a password hash is an argon2 PHC string, as `strandline hash-password` \
                      prints it";
        let parsed = PasswordHash::new(text).map_err(|_| advice.to_owned())?;
        let params = Params::try_from(&parsed).map_err(|_| advice.to_owned())?;
        if !parsed.algorithm.as_str().starts_with("argon2")
            || parsed.salt.is_none()
            || parsed.hash.is_none()
        {
            return Err(advice.to_owned());
        }
        if params.m_cost() > MOST_KIB || params.t_cost().max(params.p_cost()) > MOST_PASSES {
            return Err(format!(
                "a password hash has at most m={MOST_KIB}, t={MOST_PASSES} and p={MOST_PASSES}"
            ));
        }
        Ok(Hash(text.to_owned()))
    }

    /// Whether this is the hash of the password. Takes tens of milliseconds.
    pub fn matches(&self, password: &[u8]) -> bool {
        let parsed = PasswordHash::new(&self.0).expect("it was parsed before");
        Argon2::default().verify_password(password, &parsed).is_ok()
    }

    /// The PHC string.
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let hash = Hash::of(b"secret").expect("it is hashed");
        assert!(hash.text().starts_with("$argon2id$"), "{}", hash.text());
        assert!(hash.matches(b"secret") && !hash.matches(b"secre") && !hash.matches(b""));
        assert_eq!(Hash::parse(hash.text()), Ok(hash));
    }

    #[test]
    fn hashes_that_cannot_be_checked_are_refused() {
        let salt_and_hash = "c29tZXNhbHQ$ukYrSpAkH7WHLYQm7dO3zhfPI3gRyVxRXnlPZGFvMNs";
        let with = |head: &str| format!("{head}${salt_and_hash}");
        assert!(Hash::parse(&with("$argon2id$v=19$m=64,t=1,p=1")).is_ok());
        for wrong in [
            String::new(),
            "secret".into(),
            "$argon2id$v=19$m=64,t=1,p=1".into(),
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
            with("$scrypt$ln=1"),
            with("$argon2id$v=19$m=4000000,t=1,p=1"),
            with("$argon2id$v=19$m=64,t=1000,p=1"),
        ] {
            assert!(Hash::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
