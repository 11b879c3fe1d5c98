//! Whether a connection may run a request: first its category, then everything that it names.
//!
//! A user that may do everything passes after one comparison. A terminal's token has a list of its
//! own (`TokenRule`), which is short on purpose: a command that is not on it is refused.

use bytes::Bytes;

use super::row::Command;
use super::scope::{Needs, Scope, Subject, TokenRule, Touch};
use crate::access::{
    Account, Identity, RAW_EVENTS, TerminalToken, is_event_timeline, user_of_channel,
};
use crate::refusal::Refusal;

const NO_PERMISSION: &str = "NOPERM";

/// Checks the category of a request. Names are checked by [`check_names`], after the number of
/// words is known to be right.
pub fn check_command(command: &Command, needs: &Needs, identity: &Identity) -> Result<(), Refusal> {
    if command.before_login {
        return Ok(());
    }
    match identity {
        Identity::Stranger => Err(Refusal::new("NOAUTH", "Authentication required.")),
        Identity::User(user) if user.is_everything() || user.rules().grants.has(needs.unit) => {
            Ok(())
        }
        Identity::User(user) => Err(refused_command(user.name(), command, needs)),
        Identity::Terminal(_) if needs.token != TokenRule::Never => Ok(()),
        Identity::Terminal(_) => Err(Refusal::new(
            NO_PERMISSION,
            format!("a token may not run '{}'", needs.name(command.name, command.class)),
        )),
    }
}

fn refused_command(name: &str, command: &Command, needs: &Needs) -> Refusal {
    let text = format!(
        "User {name} has no permissions to run the '{}' command",
        needs.name(command.name, command.class)
    );
    Refusal::new(NO_PERMISSION, text)
}

/// Checks everything that a request names.
pub fn check_names(
    command: &Command,
    needs: &Needs,
    request: &[Bytes],
    identity: &Identity,
) -> Result<(), Refusal> {
    match identity {
        _ if command.before_login => Ok(()),
        Identity::Stranger => Ok(()),
        Identity::User(user) if user.is_everything() => Ok(()),
        Identity::User(user) => check_user(command, needs, request, user),
        Identity::Terminal(terminal) => check_token(needs, request, terminal),
    }
}

fn check_user(
    command: &Command,
    needs: &Needs,
    request: &[Bytes],
    user: &Account,
) -> Result<(), Refusal> {
    let may_write_events = !command.raw_events || user.rules().grants.has_raw_events();
    match needs.scope {
        Scope::Nothing => Ok(()),
        Scope::Everything | Scope::Undeclared if user.rules().patterns.is_all() => Ok(()),
        Scope::Everything | Scope::Undeclared => {
            let text = format!(
                "User {} has no permissions to run '{}', which needs every key (~*)",
                user.name(),
                needs.name(command.name, command.class)
            );
            Err(Refusal::new(NO_PERMISSION, text))
        }
        Scope::Of(touches) => {
            each(touches, request, &mut |subject| see(subject, user, may_write_events))
        }
    }
}

fn each<'r>(
    touches: &[Touch],
    request: &'r [Bytes],
    see: &mut dyn FnMut(Subject<'r>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    touches.iter().try_for_each(|touch| touch.visit(request, see))
}

fn see(subject: Subject<'_>, user: &Account, may_write_events: bool) -> Result<(), Refusal> {
    let patterns = &user.rules().patterns;
    let matches = match subject {
        Subject::Key(key) | Subject::Prefix(key) => patterns.has_key(key),
        Subject::Store(name) => patterns.has_store(name),
        Subject::Conversation(id) => patterns.has_conversation(id),
        Subject::User(id) => patterns.has_user(id),
        Subject::Channel(name) => patterns.has_channel(name),
    };
    if !matches {
        let text =
            format!("User {} has no permissions to access {}", user.name(), subject.described());
        return Err(Refusal::new(NO_PERMISSION, text));
    }
    match subject {
        Subject::Key(key) if !may_write_events && is_event_timeline(key) => {
            let text = format!(
                "only IM commands write to {}, unless the user has the category {RAW_EVENTS}",
                subject.described()
            );
            Err(Refusal::new(NO_PERMISSION, text))
        }
        _ => Ok(()),
    }
}

fn check_token(needs: &Needs, request: &[Bytes], terminal: &TerminalToken) -> Result<(), Refusal> {
    let from = |at: usize| request.get(at..).unwrap_or_default();
    let itself = |word: &Bytes| *word == terminal.user;
    let conv = request.get(1).map_or(&b""[..], |word| &word[..]);
    let (may, what) = match needs.token {
        TokenRule::Never => (false, "run this command"),
        TokenRule::Always | TokenRule::AsMember => (true, ""),
        TokenRule::AsItself(at) => (request.get(at).is_some_and(itself), "act as another user"),
        TokenRule::OnlyItself(at) => (from(at).iter().all(itself), "act for another user"),
        TokenRule::Join if !terminal.may_join(conv) => (false, "join this conversation"),
        TokenRule::Join => (from(2).iter().all(itself), "act for another user"),
        TokenRule::Create => (terminal.may_create(conv), "create this conversation"),
        TokenRule::OwnChannel => {
            let is_own =
                |word: &Bytes| user_of_channel(word).is_some_and(|user| user == terminal.user);
            (from(1).iter().all(is_own), "subscribe to another channel than its user's")
        }
    };
    if may { Ok(()) } else { Err(Refusal::new(NO_PERMISSION, format!("a token may not {what}"))) }
}
