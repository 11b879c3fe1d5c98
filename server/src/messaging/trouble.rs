//! Why messaging does not do what it is asked for, by what the caller can do next.

use strandline::Error;

/// The result of everything in messaging that can fail.
pub type Result<T> = std::result::Result<T, Trouble>;

/// What is wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// The call itself.
    #[error("{0}")]
    Usage(&'static str),
    /// A name or a body over its limit.
    #[error("{what} has at most {limit} bytes")]
    TooBig {
        /// Which.
        what: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// No such conversation.
    #[error("there is no such conversation: IM.CREATE makes one")]
    NotFound,
    /// Not a member.
    #[error("the sender is not a member of the conversation")]
    NoPermission,
    /// No such message or event, or nothing of it is kept any more.
    #[error("there is no such message, or it was recalled, or nothing of it is kept any more")]
    NoMessage,
    /// Somebody else's.
    #[error("somebody else sent this message")]
    NotTheSender,
    /// The change window is over.
    #[error("it is too late: messaging.change_window_ms is {window_ms}")]
    TooLate {
        /// How long a message may be changed.
        window_ms: u64,
    },
    /// It was made otherwise.
    #[error("the conversation was created with other settings")]
    OtherSettings,
    /// Too many members.
    #[error("a conversation has at most {limit} members")]
    TooManyMembers {
        /// The limit.
        limit: usize,
    },
    /// A ledger does not say all that it said.
    #[error(
        "the ledger {ledger} cannot be read at {sequence}, or lacks records before it: restore a \
         backup, or \
         stop the server and run strandline rebuild-members"
    )]
    Ledger {
        /// Which timeline.
        ledger: String,
        /// Which entry.
        sequence: u64,
    },
    /// A ledger is damaged.
    #[error(
        "the ledger {ledger} cannot be read: {error}: restore a backup, or stop the server and \
         run strandline \
         rebuild-members"
    )]
    DamagedLedger {
        /// Which timeline.
        ledger: String,
        /// What the engine says.
        error: Error,
    },
    /// There is no ledger of what has events.
    #[error(
        "the ledger {ledger} is lost, though there are events of it: restore a backup, or stop \
         the server and run \
         strandline rebuild-members"
    )]
    NoLedger {
        /// Which timeline it would be.
        ledger: String,
    },
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Trouble {
    /// Whether what was to be read is damaged, or a ledger incomplete.
    pub fn is_damage(&self) -> bool {
        match self {
            Trouble::Ledger { .. } | Trouble::DamagedLedger { .. } | Trouble::NoLedger { .. } => {
                true
            }
            Trouble::Engine(error) => error.is_damage(),
            _ => false,
        }
    }
}
