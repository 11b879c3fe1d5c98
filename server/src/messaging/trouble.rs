//! The errors of messaging, arranged by what the caller can do next.

use strandline::Error;

/// The result of everything in messaging that can fail.
pub type Result<T> = std::result::Result<T, Trouble>;

/// An error of messaging.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// The call is wrong.
    #[error("{0}")]
    Usage(&'static str),
    /// An id or a body is over its limit.
    #[error("{what} has at most {limit} bytes")]
    TooBig {
        /// The thing that is too big.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The conversation does not exist.
    #[error("there is no such conversation: IM.CREATE makes one")]
    NotFound,
    /// The user is not a member.
    #[error("the sender is not a member of the conversation")]
    NoPermission,
    /// The message or event does not exist, or nothing of it is kept any more.
    #[error("there is no such message, or it was recalled, or nothing of it is kept any more")]
    NoMessage,
    /// The message is somebody else's.
    #[error("somebody else sent this message")]
    NotTheSender,
    /// The time for changes is over.
    #[error("it is too late: messaging.change_window_ms is {window_ms}")]
    TooLate {
        /// How long a message may be changed, in milliseconds.
        window_ms: u64,
    },
    /// The conversation exists with other settings.
    #[error("the conversation was created with other settings")]
    OtherSettings,
    /// The conversation would have too many members.
    #[error("a conversation has at most {limit} members")]
    TooManyMembers {
        /// The limit.
        limit: usize,
    },
    /// A ledger is incomplete.
    #[error(
        "the ledger {ledger} cannot be read at {sequence}, or lacks records before it: restore a \
         backup, or \
         stop the server and run strandline rebuild-members"
    )]
    Ledger {
        /// The timeline of the ledger.
        ledger: String,
        /// The entry that cannot be read, or before which records are missing.
        sequence: u64,
    },
    /// A ledger is damaged.
    #[error(
        "the ledger {ledger} cannot be read: {error}: restore a backup, or stop the server and \
         run strandline \
         rebuild-members"
    )]
    DamagedLedger {
        /// The timeline of the ledger.
        ledger: String,
        /// The engine's error.
        error: Error,
    },
    /// A conversation or a user has events and no ledger.
    #[error(
        "the ledger {ledger} is lost, though there are events of it: restore a backup, or stop \
         the server and run \
         strandline rebuild-members"
    )]
    NoLedger {
        /// The timeline that the ledger would have.
        ledger: String,
    },
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Trouble {
    /// Whether data is damaged or lost, or a ledger incomplete.
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
