//! From a mail to durable calls: one for each recipient, and the answer when all of them are in the store.
//!
//! A client that is not told so sends the mail again. Then those that were accepted before are not accepted twice: each call
//! has an idempotency key, made of the mail, its sender and its recipient. Mails that are equal to the byte may all the same be
//! two: scripts send "disk full" each hour, without a Message-ID. Of such a mail only one that was not answered with 250 is
//! the same as the next one; that is remembered here ([`Unsettled`]), for as long as the daemon runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::address::Address;
use super::content::{Content, Role};
use super::mailboxes::roles;
use super::parts::PARTS_MAX;
use super::session::{Delivery, Mail, Verdict};
use crate::exchange::elsewhere;
use crate::gateway::INLINE_BYTES_MAX;
use crate::routes::{Routes, Target};
use crate::{Answer, Call, Event, Gateway, Ticket, bind};

/// How long the store may take. A client waits for ten minutes (RFC 5321 §4.5.3.2.6), and may come again.
const STORE_MAX: Duration = Duration::from_secs(120);

/// Arguments of one mail that are on their way into the store, in bytes. There may be a hundred recipients, each with all
/// of the mail.
const ON_THEIR_WAY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most that a durable call is made with, in bytes (docs/durable.md).
const ARGUMENTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Mails without a Message-ID that were not answered with 250, of which the next equal one is the same.
const UNSETTLED_MAX: usize = 10_000;

/// What a mail without a Message-ID is known by.
type Digest = [u8; 32];

/// What tells two equal mails apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u64);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    salts: BTreeMap<Digest, Salt>,
    order: VecDeque<Digest>,
}

impl Unsettled {
    /// What an equal mail had, if it is not settled. It is forgotten with that.
    fn take(&self, digest: &Digest) -> Option<Salt> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let salt = remembered.salts.remove(digest)?;
        remembered.order.retain(|known| known != digest);
        Some(salt)
    }

    /// The client was not told that the mail is accepted.
    pub(crate) fn keep(&self, digest: Digest, salt: Salt) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.salts.insert(digest, salt).is_none() {
            remembered.order.push_back(digest);
        }
        if remembered.order.len() > UNSETTLED_MAX
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.salts.remove(&oldest);
        }
    }
}

/// What a mail was delivered under, if that is to be remembered when the client is not told.
pub(crate) type Passed = Option<(Digest, Salt)>;

/// Whether mail for somebody is taken.
pub(crate) fn verdict(gateway: &Gateway, address: &Address) -> Verdict {
    let routes = gateway.routes();
    match routes.mailboxes().find(address) {
        Some(_) => Verdict::Taken,
        None if !gateway.shared.loaded.load(Ordering::Relaxed) => {
            Verdict::Later("the daemon is still loading its modules; come again".to_owned())
        }
        // It might be the one that takes it: a mistake in a file is no reason to send mail back.
        None if routes.is_incomplete() => {
            Verdict::Later("a module that may take this does not load; come again".to_owned())
        }
        None => Verdict::Unknown,
    }
}

/// Makes the calls, and says what became of the mail.
pub(crate) async fn deliver(
    gateway: &Gateway,
    unsettled: &Unsettled,
    mail: Mail,
    peer: &str,
) -> (Delivery, Passed) {
    let routes = gateway.routes();
    let Some(targets) = targets(&routes, &mail) else {
        let why = "a function that took this is not there any more, or loads anew; come again";
        return (Delivery::Later(why.to_owned()), None);
    };
    let wanted: Vec<Role> =
        targets.iter().flat_map(|target| roles(&target.signature)).map(|(role, _)| role).collect();
    let (mail, peer) = (Arc::new(mail), peer.to_owned());
    let is_small = mail.data.len() <= INLINE_BYTES_MAX;
    let read = {
        let mail = Arc::clone(&mail);
        move || (Content::new(&mail, &peer, |role| wanted.contains(&role)), digest(&mail))
    };
    let Ok((content, digest)) = (if is_small { Ok(read()) } else { elsewhere(read).await }) else {
        return (Delivery::Later("the mail could not be read; come again".to_owned()), None);
    };
    let Some(content) = content else {
        return (Delivery::Refused(format!("the mail has more than {PARTS_MAX} parts")), None);
    };
    let salt = (!content.is_named).then(|| unsettled.take(&digest).unwrap_or_else(|| fresh(gateway)));
    let planned = targets.into_iter().zip(&mail.recipients).map(|(target, recipient)| Planned {
        target,
        key: key(&digest, salt, recipient),
        recipient: recipient.to_string(),
    });
    let delivery = call_all(gateway, &content, &planned.collect::<Vec<_>>()).await;
    (delivery, salt.map(|salt| (digest, salt)))
}

/// The functions of the recipients; `None` if there is none for one of them.
fn targets<'r>(routes: &'r Routes, mail: &Mail) -> Option<Vec<&'r Arc<Target>>> {
    mail.recipients.iter().map(|recipient| routes.mailboxes().find(recipient)).collect()
}

/// Either all of it is too large for a function, or every call is made.
async fn call_all(gateway: &Gateway, content: &Content, planned: &[Planned<'_>]) -> Delivery {
    let most = gateway.config().limits.body_bytes_max.min(ARGUMENTS_BYTES_MAX);
    for plan in planned {
        let bytes = plan.bytes(content);
        if bytes > most {
            let why = format!(
                "{} would be called with {bytes} bytes for {}, at most {most} are allowed",
                plan.target.name, plan.recipient
            );
            return Delivery::TooLarge(why);
        }
    }
    let mut first = None;
    let mut failures = Vec::new();
    let mut rest = planned.iter().peekable();
    while rest.peek().is_some() {
        let mut answers = Vec::new();
        let mut bytes = 0;
        while let Some(plan) = rest.next_if(|plan| {
            bytes += plan.bytes(content);
            answers.is_empty() || bytes <= ON_THEIR_WAY_BYTES_MAX
        }) {
            answers.push(plan.call(gateway, content));
        }
        for answer in answers {
            match stored(answer).await {
                Ok(call) => first = first.or(call),
                Err(failure) => failures.push(failure),
            }
        }
    }
    if failures.is_empty() {
        let id = first.map(|call| format!(" as call {call}")).unwrap_or_default();
        let more = planned.len().saturating_sub(1);
        return Delivery::Done(match more {
            0 => format!("accepted{id}"),
            _ => format!("accepted{id} and {more} more"),
        });
    }
    let all = failures.len() == planned.len();
    undone(&failures, all)
}

/// What to say of a mail that is not in the store for all recipients. It may come again: what was accepted is not accepted
/// twice.
fn undone(failures: &[v1::Failure], all: bool) -> Delivery {
    let of = |code: Code| failures.iter().find(|failure| failure.kind() == code);
    if of(Code::ShuttingDown).is_some() {
        return Delivery::Stopping;
    }
    if let Some(failure) = of(Code::QueueFull).or(of(Code::NoCapacity)) {
        return Delivery::Busy(format!("{}; come again", failure.message));
    }
    let for_good = |failure: &v1::Failure| {
        matches!(failure.kind(), Code::BadArguments | Code::BadRequest | Code::TooLarge)
    };
    match failures.first() {
        Some(failure) if all && failures.iter().all(for_good) => Delivery::Refused(failure.message.clone()),
        Some(failure) => Delivery::Later(format!("{}; come again", failure.message)),
        None => Delivery::Later("nothing is known of it; come again".to_owned()),
    }
}

/// One call to be made.
struct Planned<'r> {
    target: &'r Arc<Target>,
    recipient: String,
    key: String,
}

type Answered = Result<oneshot::Receiver<Answer>, v1::Failure>;

impl Planned<'_> {
    /// How large its arguments are, near enough.
    fn bytes(&self, content: &Content) -> usize {
        const NAMES: usize = 256;
        let roles = roles(&self.target.signature);
        roles.iter().map(|(role, _)| content.of(*role, &self.recipient).len()).sum::<usize>() + NAMES
    }

    fn call(&self, gateway: &Gateway, content: &Content) -> Answered {
        let shared = &gateway.shared;
        let roles = roles(&self.target.signature);
        let values = roles.into_iter().map(|(role, name)| (name, content.of(role, &self.recipient)));
        let arguments = bind::named(&self.target.signature, values.collect())?;
        let trigger =
            v1::Trigger { kind: "mail".to_owned(), name: self.recipient.clone(), ..Default::default() };
        let call = Call {
            function: self.target.name.clone(),
            arguments,
            timeout: None,
            queue_wait: None,
            horizon: v1::Horizon::Unspecified,
            scale_after: None,
            overflow: v1::Overflow::Queue,
            traceparent: shared.tracer.context(None),
            context: BTreeMap::new(),
            version: String::new(),
            asynchronous: true,
            idempotency_key: self.key.clone(),
            delay: None,
            trigger: Some(Box::new(trigger)),
        };
        let ticket = Ticket(shared.tickets.fetch_add(1, Ordering::Relaxed));
        let (reply, answered) = oneshot::channel();
        let sent = shared.events.send(Event::Call { call, ticket, reply });
        sent.map_err(|_| Code::ShuttingDown.because("the daemon is stopping"))?;
        Ok(answered)
    }
}

/// Waits until the call is in the store. Who waits too long does not know; the key makes that no harm.
async fn stored(answer: Answered) -> Result<Option<CallId>, v1::Failure> {
    match timeout(STORE_MAX, answer?).await {
        Ok(Ok(Answer { call, result })) => result.map(|_| call),
        Ok(Err(_)) => Err(Code::Internal.because("the daemon dropped the mail")),
        Err(_) => Err(Code::StoreUnavailable.because("the store takes too long")),
    }
}

/// Names the mail and its sender.
fn digest(mail: &Mail) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("bourse 2026 mail");
    let from = mail.from.as_ref().map(ToString::to_string).unwrap_or_default();
    hasher.update(&(from.len() as u64).to_le_bytes());
    hasher.update(from.as_bytes());
    hasher.update(&mail.data);
    hasher.finalize().into()
}

/// Of one function and recipient, equal for equal mails only.
fn key(digest: &Digest, salt: Option<Salt>, recipient: &Address) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("bourse 2026 mail for a recipient");
    hasher.update(digest);
    hasher.update(&salt.map_or([0; 8], |salt| salt.0.to_le_bytes()));
    hasher.update(recipient.folded().as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Not used before, also in another life of the daemon.
fn fresh(gateway: &Gateway) -> Salt {
    let count = gateway.shared.tickets.fetch_add(1, Ordering::Relaxed);
    Salt(gateway.config().seed[0].wrapping_add(count).max(1))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn mail(from: &str, data: &'static [u8]) -> Mail {
        Mail {
            from: Address::parse(from).ok(),
            recipients: Vec::new(),
            helo: String::new(),
            tls: false,
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn keys_are_equal_for_equal_mails_only() {
        let key = |from, data, salt: Option<u64>, to: &str| {
            key(&digest(&mail(from, data)), salt.map(Salt), &Address::parse(to).unwrap())
        };
        let one = key("a@x", b"data", None, "orders@y");
        assert_eq!(one.len(), 64);
        assert_eq!(one, key("a@x", b"data", None, "Orders@Y"));
        for other in [
            key("b@x", b"data", None, "orders@y"),
            key("a@x", b"date", None, "orders@y"),
            key("a@x", b"data", None, "order@y"),
            key("a@x", b"data", Some(1), "orders@y"),
            key("", b"data", None, "orders@y"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_is_not_settled_is_remembered_and_not_for_ever() {
        let unsettled = Unsettled::default();
        let digest = |n: usize| *blake3::hash(&n.to_le_bytes()).as_bytes();
        for n in 0..=UNSETTLED_MAX {
            unsettled.keep(digest(n), Salt(n as u64));
        }
        assert_eq!(unsettled.take(&digest(0)), None);
        assert_eq!((unsettled.take(&digest(7)), unsettled.take(&digest(7))), (Some(Salt(7)), None));
        assert_eq!(unsettled.0.lock().unwrap().order.len(), UNSETTLED_MAX - 1);
    }

    #[test]
    fn what_is_said_of_what_is_not_stored() {
        let told = |codes: &[Code], all| {
            let failures: Vec<_> = codes.iter().map(|code| code.because("why")).collect();
            format!("{:?}", undone(&failures, all))
        };
        assert!(told(&[Code::StoreUnavailable, Code::ShuttingDown], false).starts_with("Stopping"));
        assert!(told(&[Code::StoreUnavailable, Code::QueueFull], false).starts_with("Busy"));
        assert!(told(&[Code::BadArguments], true).starts_with("Refused"));
        assert!(told(&[Code::BadArguments], false).starts_with("Later"), "the others are in the store");
        assert!(told(&[Code::NotFound], true).starts_with("Later"));
    }
}
