//! Whom a connection acts for: nobody yet, a user with rules, or the user of a terminal's token.

use std::sync::Arc;

use super::account::Account;
use super::token::TerminalToken;

/// Whom a connection acts for.
#[derive(Clone)]
pub enum Identity {
    /// It has not logged in.
    Stranger,
    /// A user with rules.
    User(Arc<Account>),
    /// A terminal of the user of its token.
    Terminal(Arc<TerminalToken>),
}

impl Identity {
    /// Whether it has logged in.
    pub fn is_known(&self) -> bool {
        !matches!(self, Identity::Stranger)
    }

    /// Whether it is the same user, perhaps with other rules or another token.
    pub fn is_same(&self, other: &Identity) -> bool {
        match (self, other) {
            (Identity::User(one), Identity::User(other)) => one.id() == other.id(),
            (Identity::Terminal(one), Identity::Terminal(other)) => one.user == other.user,
            _ => false,
        }
    }

    /// The user's name; empty before login.
    pub fn name(&self) -> &[u8] {
        match self {
            Identity::Stranger => b"",
            Identity::User(user) => user.name().as_bytes(),
            Identity::Terminal(terminal) => &terminal.user,
        }
    }

    /// The user whose patterns leave something out, if there is one. What lists show must match
    /// its patterns.
    pub fn sight(&self) -> Option<Arc<Account>> {
        match self {
            Identity::User(user) if !user.rules().patterns.is_all() => Some(Arc::clone(user)),
            _ => None,
        }
    }

    /// The terminal, if a token logged it in.
    pub fn terminal(&self) -> Option<&Arc<TerminalToken>> {
        match self {
            Identity::Terminal(terminal) => Some(terminal),
            _ => None,
        }
    }
}
