//! Authentication: one user, `default`, with one password; none if no password is set.
//!
//! The comparison takes the same time wherever the passwords differ, so that a guess cannot be
//! improved byte by byte.

use std::hint::black_box;

/// The only user.
const USER: &[u8] = b"default";

/// The server's password, if it has one.
#[derive(Clone, Default)]
pub struct Password(Option<String>);

/// The reason why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The server has no password.
    NotConfigured,
    /// The user or the password is wrong; the error does not show which.
    Wrong,
}

impl Password {
    /// The password of the server; an empty one means none.
    pub fn new(password: Option<String>) -> Password {
        Password(password.filter(|password| !password.is_empty()))
    }

    /// Whether clients must log in.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Checks a user and a password.
    pub fn check(&self, user: &[u8], password: &[u8]) -> Result<(), LoginError> {
        let expected = self.0.as_ref().ok_or(LoginError::NotConfigured)?;
        if same(password, expected.as_bytes()) && user == USER {
            Ok(())
        } else {
            Err(LoginError::Wrong)
        }
    }
}

fn same(given: &[u8], expected: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != expected.len());
    for (index, byte) in given.iter().enumerate() {
        difference |= byte ^ expected[index % expected.len()];
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_user_with_the_right_password_may_log_in() {
        let password = Password::new(Some("secret".into()));
        assert_eq!(password.check(b"default", b"secret"), Ok(()));
        for (user, given) in [
            ("default", "secre"),
            ("default", "secrets"),
            ("default", ""),
            ("root", "secret"),
            ("default", "secretsecret"),
        ] {
            assert_eq!(
                password.check(user.as_bytes(), given.as_bytes()),
                Err(LoginError::Wrong),
                "{user} {given}"
            );
        }
        assert_eq!(Password::new(None).check(b"default", b"x"), Err(LoginError::NotConfigured));
        assert!(!Password::new(Some(String::new())).is_set());
    }
}
