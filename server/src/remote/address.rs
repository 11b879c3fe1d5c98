//! The address of a server, as a person writes it.

use std::fmt;
use std::str::FromStr;

use strandline_server::DEFAULT_PORT;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user to log in as, if the address names one.
    pub user: Option<String>,
    /// Whether the scheme asks for TLS.
    pub is_secure: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("strandline", text));
        let is_secure = match scheme {
            "strandline" | "redis" => false,
            "strandlines" | "rediss" => true,
            other => return Err(format!("{other}:// is unknown: use strandline:// or redis://")),
        };
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, rest),
        };
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(
                "a password in the address can be read by others: put it into STRANDLINE_PASSWORD"
                    .to_owned(),
            );
        }
        let wrong = || format!("{place} is no address: use HOST:PORT, such as 127.0.0.1:7411");
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| wrong()))?;
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Address { host: host.to_owned(), port, user, is_secure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed, user, is_secure) in [
            ("localhost", "localhost:7411", None, false),
            ("10.0.0.1:6379", "10.0.0.1:6379", None, false),
            ("[::1]:9", "[::1]:9", None, false),
            ("strandline://ann@db:1", "db:1", Some("ann"), false),
            ("redis://db", "db:7411", None, false),
            ("strandlines://db:2/", "db:2", None, true),
        ] {
            let address = address(text);
            assert_eq!(address.to_string(), printed);
            assert_eq!((address.user.as_deref(), address.is_secure), (user, is_secure), "{text}");
        }
    }

    #[test]
    fn addresses_with_a_password_and_other_texts_are_refused() {
        let refused = |text: &str| text.parse::<Address>().expect_err(text);
        assert!(refused("redis://ann:secret@db").contains("STRANDLINE_PASSWORD"));
        assert!(!refused("redis://ann:secret@db").contains("secret"));
        for text in ["", ":7411", "db:port", "db:70000", "[::1", "http://db"] {
            refused(text);
        }
    }
}
