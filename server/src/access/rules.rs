//! The rules of a user, in the words of Redis' ACLs:
//!
//! | rule | effect |
//! |---|---|
//! | `on`, `off` | the user may log in, or not |
//! | `>password`, `<password` | adds or removes a password |
//! | `#hash`, `!hash` | the same, given its argon2 hash (a PHC string) |
//! | `nopass`, `resetpass` | no password is checked; there is no password |
//! | `~pattern`, `allkeys`, `resetkeys` | keys, conversations and users (`pattern.rs`) |
//! | `&pattern`, `allchannels`, `resetchannels` | channels besides those of the keys |
//! | `+command`, `-command`, `+@category`, `-@category` | commands |
//! | `allcommands`, `nocommands` | `+@all`, `-@all` |
//! | `reset` | as a user that was just made |

use super::catalog::Catalog;
use super::grants::Grants;
use super::password::Hash;
use super::pattern::Patterns;

/// The rules of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether the user may log in.
    pub is_on: bool,
    /// Whether no password is checked.
    pub needs_no_password: bool,
    /// The hashes of the passwords.
    pub passwords: Vec<Hash>,
    /// What the user may touch.
    pub patterns: Patterns,
    /// What the user may run.
    pub grants: Grants,
}

impl Rules {
    /// Every right, without a password.
    pub fn everything() -> Rules {
        let mut patterns = Patterns::default();
        patterns.add_key("*");
        patterns.add_channel("*");
        Rules {
            is_on: true,
            needs_no_password: true,
            passwords: Vec::new(),
            patterns,
            grants: Grants::everything(),
        }
    }

    /// Whether the user may run everything on everything.
    pub fn is_everything(&self) -> bool {
        self.patterns.is_all() && self.grants.is_everything()
    }

    /// Applies a rule. The error does not contain the rule if this has a password. Rules with
    /// passwords take tens of milliseconds.
    pub fn apply(&mut self, rule: &str, catalog: &Catalog) -> Result<(), String> {
        let failed = |why: &str| Err(format!("the rule '{}' is not valid: {why}", shown(rule)));
        match rule.to_ascii_lowercase().as_str() {
            "on" => self.is_on = true,
            "off" => self.is_on = false,
            "nopass" => {
                self.passwords.clear();
                self.needs_no_password = true;
            }
            "resetpass" => self.reset_passwords(),
            "allkeys" => self.patterns.add_key("*"),
            "resetkeys" => self.patterns.reset_keys(),
            "allchannels" => self.patterns.add_channel("*"),
            "resetchannels" => self.patterns.reset_channels(),
            "allcommands" => self.grants = Grants::everything(),
            "nocommands" => self.grants = Grants::default(),
            "reset" => *self = Rules::default(),
            // Clients of Redis may send these; they are about its own data.
            "sanitize-payload" | "skip-sanitize-payload" | "clearselectors" => {}
            _ => match rule.split_at_checked(1) {
                Some((sign @ (">" | "<" | "#" | "!"), secret)) => {
                    if let Err(why) = self.change_passwords(sign, secret) {
                        return failed(&why);
                    }
                }
                Some((sign @ ("~" | "&"), pattern)) if is_pattern(pattern) => {
                    if sign == "~" {
                        self.patterns.add_key(pattern);
                    } else {
                        self.patterns.add_channel(pattern);
                    }
                }
                Some(("~" | "&", _)) => return failed("a pattern has no spaces and is not empty"),
                Some((sign @ ("+" | "-"), subject)) => {
                    if !self.grants.add(sign == "+", subject, catalog) {
                        return failed("there is no such command or category; ACL CAT lists them");
                    }
                }
                _ => return failed("syntax error; docs/access.md lists the rules"),
            },
        }
        Ok(())
    }

    fn reset_passwords(&mut self) {
        self.passwords.clear();
        self.needs_no_password = false;
    }

    fn change_passwords(&mut self, sign: &str, secret: &str) -> Result<(), String> {
        match sign {
            ">" => {
                if !self.passwords.iter().any(|hash| hash.matches(secret.as_bytes())) {
                    self.passwords.push(Hash::of(secret.as_bytes())?);
                }
                self.needs_no_password = false;
            }
            "#" => self.add_hash(Hash::parse(secret)?),
            "<" => {
                let known = |hash: &Hash| hash.matches(secret.as_bytes());
                return self.remove_password(known);
            }
            _ => return self.remove_password(|hash| hash.text() == secret),
        }
        Ok(())
    }

    /// Adds the hash of a password.
    pub fn add_hash(&mut self, hash: Hash) {
        self.needs_no_password = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, is_meant: impl Fn(&Hash) -> bool) -> Result<(), String> {
        let before = self.passwords.len();
        self.passwords.retain(|hash| !is_meant(hash));
        if self.passwords.len() == before {
            return Err("the user has no such password".into());
        }
        Ok(())
    }

    /// The rules as a line of ACL LIST, without the user's name.
    pub fn text(&self) -> String {
        let mut words = vec![if self.is_on { "on" } else { "off" }.to_owned()];
        if self.needs_no_password {
            words.push("nopass".into());
        }
        words.extend(self.passwords.iter().map(|hash| format!("#{}", hash.text())));
        words.extend(self.patterns.key_rules());
        words.extend(self.patterns.channel_rules());
        words.push(self.grants.text());
        words.join(" ")
    }
}

fn is_pattern(pattern: &str) -> bool {
    !pattern.is_empty() && !pattern.contains(|letter: char| letter.is_whitespace())
}

/// A rule as errors show it: without a password.
fn shown(rule: &str) -> String {
    const SHOWN_LETTERS: usize = 64;
    match rule.split_at_checked(1) {
        Some((sign @ (">" | "<" | "#" | "!"), _)) => format!("{sign}***"),
        _ => rule.chars().take(SHOWN_LETTERS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::example;
    use super::*;

    fn rules(words: &str) -> Rules {
        let mut rules = Rules::default();
        for word in words.split(' ') {
            rules.apply(word, &example()).expect("it is a rule");
        }
        rules
    }

    #[test]
    fn rules_are_applied_in_their_order_and_shown_as_rules() {
        for (given, shown) in [
            ("off", "off -@all"),
            ("on nopass allkeys allcommands", "on nopass ~* +@all"),
            ("on ~a:* ~b:* resetkeys ~c:* &x &x +@read", "on ~c:* &x -@all +@read"),
            ("ON +TL.GET ~* ~a:* allchannels", "on ~* &* -@all +tl.get"),
            ("on nopass ~* +@all reset", "off -@all"),
        ] {
            let made = rules(given);
            assert_eq!(made.text(), shown);
            assert_eq!(rules(shown), made, "the line makes the same rules");
        }
        assert!(Rules::everything().is_everything() && !rules("on ~* +@all -ping").is_everything());
    }

    #[test]
    fn passwords_are_kept_as_hashes() {
        let mut own = rules("on >one >two >one");
        assert_eq!(own.passwords.len(), 2);
        assert!(!own.text().contains("one") && own.text().contains("#$argon2id$"));
        own.apply("<one", &example()).expect("it is there");
        assert!(own.passwords[0].matches(b"two") && own.passwords.len() == 1);
        assert!(own.apply("<one", &example()).is_err());
        own.apply("nopass", &example()).expect("it is a rule");
        assert!(own.passwords.is_empty() && own.needs_no_password);
        own.apply(">three", &example()).expect("it is a rule");
        assert!(!own.needs_no_password);
    }

    #[test]
    fn errors_name_the_rule_and_no_password() {
        for (rule, shown) in [
            ("+nope", "+nope"),
            ("sideways", "sideways"),
            ("~", "~"),
            ("#hidden", "#***"),
            ("<hidden", "<***"),
            ("!hidden", "!***"),
            ("%R~x", "%R~x"),
            ("(+get", "(+get"),
            ("", ""),
        ] {
            let error = Rules::default().apply(rule, &example()).expect_err("it is no rule");
            assert!(error.contains(&format!("'{shown}'")), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
