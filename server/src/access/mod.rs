//! Who may connect, and what for: users with rules, and terminals with tokens.
//!
//! * Users come from the settings and from ACL SETUSER. Their passwords are argon2 hashes.
//! * A token acts as one user of messaging, and may do what a terminal needs.
//! * Without users, tokens and a password, every connection is the user `default`, which may do
//!   everything; then the server listens on loopback only (`config.rs`).
//!
//! Users are replaced as a whole and never changed, so a connection holds its user without a lock.
//! A version counts the changes: a connection compares one number before a command.
//!
//! It does not know the commands (`Catalog` lists them), and nothing of sockets.

mod account;
mod catalog;
mod failures;
mod grants;
mod identity;
mod password;
mod pattern;
mod rate;
mod rules;
mod secret;
mod settings;
mod token;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

pub use account::Account;
pub use catalog::{Catalog, Class, RAW_EVENTS, Unit};
pub use grants::categories;
pub use identity::Identity;
pub use password::Hash;
pub use pattern::{is_event_timeline, user_of_channel};
pub use rate::Rate;
pub use secret::Secret;
pub use settings::{
    RateSettings, TokenAlgorithm, TokenKeySettings, TokenSettings, UserSettings, UserTable,
};
pub use token::{TerminalToken, is_token};

use failures::Failures;
use rate::UserRates;
use rules::Rules;
use token::Tokens;

/// The user of connections that did not log in, and of AUTH with one word.
pub const DEFAULT_USER: &str = "default";

/// The argon2 runs at the same time: they leave threads of the pool to reads, and take 19 MiB each.
const RUNS_AT_ONCE: usize = 2;

/// The longest name of a user.
const MOST_NAME_BYTES: usize = 200;

/// A hash that no password is known for. Comparing a password of an unknown user with it takes as
/// long as with the hash of a known one, so that names cannot be found out.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c3RyYW5kbGluZSBub2JvZHk\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The reason why a login was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The user or the password is wrong, or the user is off; the error does not show which.
    Wrong,
    /// The token is not valid, and why.
    Token(String),
}

/// The users by name.
type Users = BTreeMap<String, Arc<Account>>;

/// Users, tokens, and the limits on logins and commands.
pub struct Access {
    catalog: Catalog,
    users: RwLock<Users>,
    tokens: RwLock<Tokens>,
    /// One change of the users at a time.
    changing: Mutex<()>,
    version: AtomicU64,
    last_id: AtomicU64,
    /// The password of the user `default` in the settings.
    password: Option<Hash>,
    /// Whether nobody had to log in at the start, so that the server listens accordingly.
    was_open: bool,
    /// The key of remembered passwords.
    key: hmac::Key,
    nobody: Hash,
    rates: RwLock<RateSettings>,
    user_rates: UserRates,
    /// The addresses from which logins failed.
    pub failures: Failures,
    /// A permit for each argon2 run.
    pub turns: Semaphore,
    /// The argon2 runs of logins so far.
    runs: AtomicU64,
}

/// The settings of access.
pub struct AccessSettings<'a> {
    /// The password of the user `default`.
    pub password: Option<&'a Secret>,
    /// The users.
    pub users: &'a UserTable,
    /// The keys of tokens.
    pub tokens: &'a TokenSettings,
    /// The limits on commands.
    pub rates: &'a RateSettings,
}

impl Access {
    /// The users and tokens of these settings. The error is a sentence that names the setting.
    /// Takes tens of milliseconds if there is a password.
    pub fn open(settings: &AccessSettings<'_>, catalog: Catalog) -> Result<Access, String> {
        let password = settings.password.filter(|password| !password.is_empty());
        let was_open =
            password.is_none() && settings.users.is_empty() && settings.tokens.keys.is_empty();
        let password = password.map(|password| Hash::of(password.reveal().as_bytes()));
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the operating system gives no random bytes")?;
        let access = Access {
            catalog,
            users: RwLock::default(),
            tokens: RwLock::default(),
            changing: Mutex::default(),
            version: AtomicU64::new(0),
            last_id: AtomicU64::new(0),
            password: password.transpose()?,
            was_open,
            key,
            nobody: Hash::parse(NOBODY).expect("it is a PHC string"),
            rates: RwLock::new(settings.rates.clone()),
            user_rates: UserRates::default(),
            failures: Failures::default(),
            turns: Semaphore::new(RUNS_AT_ONCE),
            runs: AtomicU64::new(0),
        };
        access.load(settings.users, settings.tokens)?;
        Ok(access)
    }

    /// Replaces the users and the keys of tokens. If there is an error, nothing changes.
    pub fn load(&self, settings: &UserTable, tokens: &TokenSettings) -> Result<(), String> {
        let _turn = self.changing.lock();
        let tokens = Tokens::new(tokens)?;
        let mut made = Users::new();
        for (name, user) in settings {
            let rules = self.rules_of(name, user)?;
            let certificate = user.certificate.as_deref();
            let has_it = |other: &Arc<Account>| other.certificate() == certificate;
            if certificate.is_some_and(str::is_empty)
                || (certificate.is_some() && made.values().any(has_it))
            {
                return Err(format!("users.{name}.certificate: a name that no other user has"));
            }
            made.insert(name.clone(), self.made(name, rules, user.certificate.clone()));
        }
        if !made.contains_key(DEFAULT_USER) {
            let rules = self.default_rules(self.was_open && made.is_empty() && tokens.is_empty());
            made.insert(DEFAULT_USER.into(), self.made(DEFAULT_USER, rules, None));
        }
        *self.users.write() = made;
        *self.tokens.write() = tokens;
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The user `default`, if the settings have none.
    fn default_rules(&self, is_unconfigured: bool) -> Rules {
        let mut rules = Rules::everything();
        match &self.password {
            Some(hash) => rules.add_hash(hash.clone()),
            None if is_unconfigured => {}
            None => return Rules::default(),
        }
        rules
    }

    fn rules_of(&self, name: &str, settings: &UserSettings) -> Result<Rules, String> {
        if !is_name(name) {
            return Err(format!("users.{name}: a name has no spaces and at most 200 bytes"));
        }
        let mut rules = Rules::default();
        for rule in ["on", "+@connection"].into_iter().chain(settings.rules.split_whitespace()) {
            if rule.starts_with(['>', '<', '#', '!']) {
                return Err(format!("users.{name}.rules: give a password as password_hash"));
            }
            rules.apply(rule, &self.catalog).map_err(|why| format!("users.{name}.rules: {why}"))?;
        }
        if let Some(hash) = &settings.password_hash {
            let hash = Hash::parse(hash.reveal())
                .map_err(|why| format!("users.{name}.password_hash: {why}"))?;
            rules.add_hash(hash);
        }
        if let Some(hash) = self.password.as_ref().filter(|_| name == DEFAULT_USER) {
            rules.add_hash(hash.clone());
        }
        Ok(rules)
    }

    /// A user of these rules: the one that exists, if it has the same, so that its connections and
    /// its remembered passwords stay.
    fn made(&self, name: &str, rules: Rules, certificate: Option<String>) -> Arc<Account> {
        let known = self.user(name.as_bytes());
        if let Some(same) = &known
            && *same.rules() == rules
            && same.certificate() == certificate.as_deref()
        {
            return Arc::clone(same);
        }
        let id = known
            .map_or_else(|| self.last_id.fetch_add(1, Ordering::Relaxed) + 1, |known| known.id());
        Arc::new(Account::new(id, name, rules, certificate))
    }

    /// Makes a user, or changes one, by these rules, all or none. Takes tens of milliseconds for
    /// each password.
    pub fn set_user<'r>(
        &self,
        name: &str,
        words: impl IntoIterator<Item = &'r str>,
    ) -> Result<(), String> {
        let _turn = self.changing.lock();
        if !is_name(name) {
            return Err("a user's name has no spaces and at most 200 bytes".into());
        }
        let known = self.user(name.as_bytes());
        let mut rules = known.as_ref().map_or_else(Rules::default, |known| known.rules().clone());
        let mut certificate = known.and_then(|known| known.certificate().map(str::to_owned));
        for word in words {
            rules.apply(word, &self.catalog)?;
            if ["reset", "resetpass"].iter().any(|reset| word.eq_ignore_ascii_case(reset)) {
                certificate = None;
            }
        }
        let user = self.made(name, rules, certificate);
        self.users.write().insert(name.to_owned(), user);
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Removes users. Returns how many there were. The user `default` stays.
    pub fn remove_users<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> usize {
        let _turn = self.changing.lock();
        let mut users = self.users.write();
        let is_removed = |name: &&str| *name != DEFAULT_USER && users.remove(*name).is_some();
        let count = names.into_iter().filter(is_removed).count();
        drop(users);
        self.version.fetch_add(1, Ordering::Release);
        count
    }

    /// The user of a name.
    pub fn user(&self, name: &[u8]) -> Option<Arc<Account>> {
        self.users.read().get(std::str::from_utf8(name).ok()?).cloned()
    }

    /// All users, by name.
    pub fn all_users(&self) -> Vec<Arc<Account>> {
        self.users.read().values().cloned().collect()
    }

    /// The commands, for ACL CAT.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// How often users, tokens or rates were changed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The same user as it is now. None if it was removed, or may not log in any more.
    pub fn as_now(&self, user: &Account) -> Option<Arc<Account>> {
        let now = self.user(user.name().as_bytes())?;
        (now.id() == user.id() && now.rules().is_on).then_some(now)
    }

    /// Whom a new connection acts for.
    pub fn newcomer(&self) -> Identity {
        match self.user(DEFAULT_USER.as_bytes()) {
            Some(user) if user.rules().is_on && user.rules().needs_no_password => {
                Identity::User(user)
            }
            _ => Identity::Stranger,
        }
    }

    /// The user whose client certificates have this common name. The certificate was verified.
    pub fn certificate_user(&self, common_name: &str) -> Option<Arc<Account>> {
        let users = self.users.read();
        let is_meant =
            |user: &&Arc<Account>| user.rules().is_on && user.certificate() == Some(common_name);
        users.values().find(is_meant).cloned()
    }

    /// Whether the key that signed a terminal's token is one of those that are valid now.
    pub fn has_key_of(&self, terminal: &TerminalToken) -> bool {
        self.tokens.read().has(&terminal.key)
    }

    /// Whether a password is to be checked as a token.
    pub fn takes_token(&self, password: &[u8]) -> bool {
        !self.tokens.read().is_empty() && is_token(password)
    }

    /// Checks a token. The name is that of its user, or that of the user `default`, which clients
    /// send if they are given a password only.
    pub fn check_token(
        &self,
        name: &[u8],
        token: &[u8],
        now_ms: u64,
    ) -> Result<Identity, LoginError> {
        let terminal = self.tokens.read().check(token, now_ms).map_err(LoginError::Token)?;
        if name != terminal.user && name != DEFAULT_USER.as_bytes() {
            return Err(LoginError::Token("it is for another user".into()));
        }
        Ok(Identity::Terminal(Arc::new(terminal)))
    }

    /// Checks a password that was verified before, or is not needed. None: [`Access::check`] must
    /// decide.
    pub fn recall(&self, name: &[u8], password: &[u8]) -> Option<Identity> {
        let user = self.user(name).filter(|user| user.rules().is_on)?;
        let is_known = user.rules().needs_no_password || user.remembers(password, &self.key);
        is_known.then_some(Identity::User(user))
    }

    /// Checks a password. Takes tens of milliseconds, and must be done with a permit of `turns`.
    pub fn check(&self, name: &[u8], password: &[u8]) -> Result<Identity, LoginError> {
        if let Some(identity) = self.recall(name, password) {
            return Ok(identity);
        }
        let run = || {
            self.runs.fetch_add(1, Ordering::Relaxed);
        };
        match self.user(name) {
            Some(user) if user.rules().is_on && !user.rules().passwords.is_empty() => {
                let is_right = user.verify(password, &self.key, run);
                is_right.then_some(Identity::User(user)).ok_or(LoginError::Wrong)
            }
            _ => {
                run();
                self.nobody.matches(password);
                Err(LoginError::Wrong)
            }
        }
    }

    /// Other limits on commands from now on.
    pub fn set_rates(&self, rates: &RateSettings) {
        *self.rates.write() = rates.clone();
        self.user_rates.forget();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The limit on the commands of one connection.
    pub fn connection_rate(&self) -> Option<Rate> {
        let rates = self.rates.read();
        Rate::new(rates.connection_per_second, rates.connection_burst)
    }

    /// The limit on the commands of all connections of a user.
    pub fn user_rate(&self, identity: &Identity, now: Duration) -> Option<Arc<Rate>> {
        let RateSettings { user_per_second, user_burst, .. } = *self.rates.read();
        if user_per_second == 0 || !identity.is_known() {
            return None;
        }
        self.user_rates.of(identity, now, || Rate::new(user_per_second, user_burst))
    }

    /// Random bytes in hexadecimal digits, as a password.
    pub fn random_password(bits: usize) -> Result<String, String> {
        let mut bytes = vec![0; bits.div_ceil(8)];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| "the operating system gives no random bytes")?;
        let mut digits = String::new();
        for byte in bytes {
            write!(digits, "{byte:02x}").expect("a string takes all that is written");
        }
        digits.truncate(bits.div_ceil(4));
        Ok(digits)
    }
}

fn is_name(name: &str) -> bool {
    (1..=MOST_NAME_BYTES).contains(&name.len())
        && !name.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(users: &[(&str, &str)]) -> UserTable {
        let user = |rules: &str| UserSettings { rules: rules.into(), ..UserSettings::default() };
        users.iter().map(|(name, rules)| ((*name).to_owned(), user(rules))).collect()
    }

    fn opened(password: Option<&str>, users: &[(&str, &str)]) -> Result<Access, String> {
        let (users, tokens) = (settings(users), TokenSettings::default());
        let (password, rates) = (password.map(Secret::from), RateSettings::default());
        let password = password.as_ref();
        let settings = AccessSettings { password, users: &users, tokens: &tokens, rates: &rates };
        Access::open(&settings, catalog::example())
    }

    fn runs(access: &Access) -> u64 {
        access.runs.load(Ordering::Relaxed)
    }

    fn is_in(access: &Access, name: &str, password: &str) -> bool {
        access.check(name.as_bytes(), password.as_bytes()).is_ok()
    }

    #[test]
    fn the_default_user_is_everybody_until_something_is_configured() {
        let open = opened(None, &[]).expect("opens");
        assert!(matches!(open.newcomer(), Identity::User(user) if user.is_everything()));
        let with_password = opened(Some("secret"), &[("ann", "nopass")]).expect("opens");
        assert!(!with_password.newcomer().is_known());
        assert!(is_in(&with_password, "default", "secret") && is_in(&with_password, "ann", "x"));
        assert!(!is_in(&with_password, "default", "") && !is_in(&with_password, "bob", "secret"));
        let with_user = opened(None, &[("ann", "+@read")]).expect("opens");
        assert!(!with_user.newcomer().is_known() && !is_in(&with_user, "default", ""));
        assert!(!opened(Some(""), &[]).expect("opens").newcomer().name().is_empty());
    }

    #[test]
    fn a_password_is_verified_once_and_again_after_a_change() {
        let access = opened(None, &[]).expect("opens");
        access.set_user("ann", ["on", ">one", ">two"]).expect("they are rules");
        let (ann, right) = (&b"ann"[..], &b"two"[..]);
        assert!(access.recall(ann, right).is_none());
        assert!(is_in(&access, "ann", "two"));
        let before = runs(&access);
        for _ in 0..10_000 {
            assert!(access.recall(ann, right).is_some() && is_in(&access, "ann", "two"));
        }
        assert_eq!(runs(&access), before, "no argon2 run for 10,000 logins");
        assert!(!is_in(&access, "ann", "twO") && runs(&access) > before);
        access.set_user("ann", ["<two"]).expect("it is there");
        assert!(access.recall(ann, right).is_none() && !is_in(&access, "ann", "two"));
        access.set_user("ann", [">two"]).expect("it is a rule");
        assert!(access.recall(ann, right).is_none(), "it was forgotten");
    }

    #[test]
    fn the_password_of_an_unknown_user_takes_a_run_too() {
        let access = opened(None, &[("off", "off nopass")]).expect("opens");
        for name in ["nobody", "off", "default"] {
            let before = runs(&access);
            assert_eq!(access.check(name.as_bytes(), b"x").err(), Some(LoginError::Wrong));
            assert_eq!(runs(&access), before + 1, "{name}");
        }
    }

    #[test]
    fn a_user_that_was_made_again_is_another_one() {
        let access = opened(None, &[]).expect("opens");
        access.set_user("ann", ["on", "nopass"]).expect("they are rules");
        let ann = access.user(b"ann").expect("she is there");
        let version = access.version();
        access.set_user("ann", ["+@read"]).expect("it is a rule");
        assert!(access.version() > version && access.as_now(&ann).is_some());
        access.set_user("ann", ["off"]).expect("it is a rule");
        assert!(access.as_now(&ann).is_none());
        assert_eq!(access.remove_users(["ann", "bob", "default"]), 1);
        access.set_user("ann", ["on", "nopass"]).expect("they are rules");
        assert!(access.as_now(&ann).is_none());
        assert!(access.set_user("ann", ["-@read", "+nope"]).is_err());
        assert_eq!(
            access.user(b"ann").map(|ann| ann.rules().text()),
            Some("on nopass -@all".into())
        );
    }

    #[test]
    fn loading_keeps_what_is_the_same_and_changes_nothing_on_an_error() {
        let access = opened(None, &[("ann", "+@read"), ("bob", "+@read")]).expect("opens");
        access.set_user("carl", ["on"]).expect("it is a rule");
        let (ann, bob) = (access.user(b"ann").expect("there"), access.user(b"bob").expect("there"));
        let tokens = TokenSettings::default();
        assert!(access.load(&settings(&[("ann", "+nope")]), &tokens).is_err());
        assert_eq!(access.all_users().len(), 4);
        access.load(&settings(&[("ann", "+@read"), ("bob", "+@write")]), &tokens).expect("loads");
        assert!(access.as_now(&ann).is_some_and(|now| Arc::ptr_eq(&now, &ann)));
        assert!(access.as_now(&bob).is_some_and(|now| !Arc::ptr_eq(&now, &bob)));
        assert!(access.user(b"carl").is_none());
    }

    #[test]
    fn users_that_are_not_valid_are_refused_by_name() {
        for (name, rules, complaint) in [
            ("ann", "+nope", "users.ann.rules"),
            ("ann", ">secret", "password_hash"),
            ("a b", "", "name"),
        ] {
            let error = opened(None, &[(name, rules)]).err().expect("it is refused");
            assert!(error.contains(complaint) && !error.contains("secret"), "{error}");
        }
        let hash = Some(Secret::from("secret"));
        let user = UserSettings { password_hash: hash, ..UserSettings::default() };
        let access = opened(None, &[]).expect("opens");
        let users = UserTable::from([("ann".to_owned(), user)]);
        let error = access.load(&users, &TokenSettings::default()).expect_err("no hash");
        assert!(error.contains("users.ann.password_hash") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_certificate_names_a_user_that_is_on() {
        let with = |rules: &str, name: &str| UserSettings {
            rules: rules.into(),
            certificate: Some(name.into()),
            ..UserSettings::default()
        };
        let users = UserTable::from([
            ("ann".to_owned(), with("+@read", "ann.example")),
            ("bob".to_owned(), with("off", "bob.example")),
        ]);
        let access = opened(None, &[]).expect("opens");
        access.load(&users, &TokenSettings::default()).expect("loads");
        let found = |name: &str| access.certificate_user(name).map(|user| user.name().to_owned());
        assert_eq!(found("ann.example"), Some("ann".into()));
        assert_eq!((found("bob.example"), found("ann"), found("")), (None, None, None));
        access.set_user("ann", ["RESETPASS"]).expect("it is a rule");
        assert_eq!(found("ann.example"), None, "whatever the case of the rule");
    }

    #[test]
    fn random_passwords_have_the_bits_that_were_asked_for() {
        let made = |bits| Access::random_password(bits).expect("random bytes");
        assert_eq!([256, 5, 4, 1].map(|bits| made(bits).len()), [64, 2, 1, 1]);
        assert_ne!(made(256), made(256));
    }
}
