//! The commands: every change of a user is one script on the server.
//!
//! ```text
//! <prefix>:u:<app>:<user>   8 bytes that name this version, then the record; with a time to live
//! <prefix>:live             sorted set: a member for each session, by the time at which it is dead
//! <prefix>:life             names the contents: gone or another = records may be lost
//! ```

use linnet_types::{SdkAppId, UnixMillis, UserId};
use redis::{Pipeline, Value};

/// Bytes in front of a record: another for each write, so that a change finds what its maker read.
pub(super) const VERSION: usize = 8;
/// What names the contents lives this long without a session node.
const LIFE_MS: u64 = 3_600_000;
/// Replies to [`look`].
pub(super) const LOOKS: usize = 5;
/// Separates the parts of a member; no id contains it.
const SEPARATOR: char = '\0';

/// Writes a record if it is what the caller read, and keeps the sorted set in step. Answers nil, or what is there instead.
const CHANGE: &str = "\
local found = redis.call('GET', KEYS[1]) or ''
if string.sub(found, 1, 8) ~= ARGV[1] then return found end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
local at = 5
for i = 1, tonumber(ARGV[4]) do
  redis.call('ZADD', KEYS[2], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for i = at, #ARGV do
  redis.call('ZREM', KEYS[2], ARGV[i])
end
return false";

/// Takes members that are due and puts them off, so that no other node takes them while this one works on them.
const TAKE: &str = "\
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  redis.call('ZADD', KEYS[1], 'XX', ARGV[3], member)
end
return due";

/// Names the contents anew, unless somebody did; answers the name.
const RENAME: &str = "\
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]";

/// Names of keys.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    live: String,
    life: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), live: format!("{prefix}:live"), life: format!("{prefix}:life") }
    }

    fn record(&self, app: SdkAppId, user: &UserId) -> String {
        format!("{}:u:{}:{user}", self.prefix, app.0)
    }
}

/// A change of one record.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) app: SdkAppId,
    pub(super) user: &'a UserId,
    /// Version that was read; empty = none was there.
    pub(super) version: &'a [u8],
    /// Version and record; empty = it goes.
    pub(super) value: Vec<u8>,
    pub(super) life_ms: u64,
    pub(super) live: Vec<(String, UnixMillis)>,
    pub(super) gone: Vec<String>,
}

/// A member of the sorted set.
pub(super) fn member(app: SdkAppId, user: &UserId, connection: &str) -> String {
    format!("{}{SEPARATOR}{user}{SEPARATOR}{connection}", app.0)
}

/// Reads [`member`] back.
pub(super) fn parse_member(member: &str) -> Option<(SdkAppId, UserId, &str)> {
    let mut parts = member.splitn(3, SEPARATOR);
    let app = SdkAppId(parts.next()?.parse().ok()?);
    Some((app, UserId::trusted(parts.next()?), parts.next()?))
}

/// Reads records, and the name of the contents behind them: one reply.
pub(super) fn read<'a>(keys: &Keys, users: impl Iterator<Item = (SdkAppId, &'a UserId)>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let command = pipeline.cmd("MGET");
    for (app, user) in users {
        command.arg(keys.record(app, user));
    }
    command.arg(&keys.life);
    pipeline
}

/// One reply a change: nil, or the value that was there instead.
pub(super) fn change(keys: &Keys, changes: &[Change<'_>]) -> Pipeline {
    let hash = redis::Script::new(CHANGE);
    let mut pipeline = Pipeline::with_capacity(changes.len());
    for (index, change) in changes.iter().enumerate() {
        // The first brings the script along, for a server that was restarted.
        let command =
            if index == 0 { pipeline.cmd("EVAL").arg(CHANGE) } else { pipeline.cmd("EVALSHA").arg(hash.get_hash()) };
        command.arg(2).arg(keys.record(change.app, change.user)).arg(&keys.live);
        command.arg(change.version).arg(change.value.as_slice()).arg(change.life_ms).arg(change.live.len());
        for (member, dead) in &change.live {
            command.arg(dead.0).arg(member);
        }
        for member in &change.gone {
            command.arg(member);
        }
    }
    pipeline
}

/// One reply: members.
pub(super) fn take(keys: &Keys, now: UnixMillis, limit: usize, until: UnixMillis) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("EVAL").arg(TAKE).arg(1).arg(&keys.live).arg(now.0).arg(limit).arg(until.0);
    pipeline
}

/// One reply nobody needs.
pub(super) fn forget(keys: &Keys, members: &[&str]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ZREM").arg(&keys.live).arg(members);
    pipeline
}

/// One reply: how many sessions.
pub(super) fn count(keys: &Keys) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ZCARD").arg(&keys.live);
    pipeline
}

/// One reply: the name from now on.
pub(super) fn rename(keys: &Keys, old: &[u8], new: &str) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("EVAL").arg(RENAME).arg(1).arg(&keys.life).arg(old).arg(new).arg(LIFE_MS);
    pipeline
}

/// What a look at a server shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) time_ms: u64,
    pub(super) life: Option<Vec<u8>>,
    /// Changes with every start of the server.
    pub(super) run_id: String,
}

/// [`LOOKS`] replies for [`read_look`].
pub(super) fn look(keys: &Keys) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("TIME");
    pipeline.cmd("GET").arg(&keys.life);
    pipeline.cmd("INFO").arg("server");
    pipeline.cmd("PEXPIRE").arg(&keys.life).arg(LIFE_MS);
    pipeline.cmd("PEXPIRE").arg(&keys.live).arg(LIFE_MS);
    pipeline
}

pub(super) fn read_look(replies: &[Value]) -> Option<Look> {
    let [Value::Array(time), life, info, ..] = replies else { return None };
    let [seconds, micros] = time.as_slice() else { return None };
    let time_ms = number(seconds)? * 1000 + number(micros)? / 1000;
    let life = match life {
        Value::BulkString(life) => Some(life.clone()),
        _ => None,
    };
    let info = match info {
        Value::BulkString(info) => String::from_utf8_lossy(info).into_owned(),
        Value::VerbatimString { text, .. } => text.clone(),
        _ => return None,
    };
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"))?.trim().to_owned();
    Some(Look { time_ms, life, run_id })
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// A reply that is text.
pub(super) fn bytes(reply: Option<Value>) -> Option<Vec<u8>> {
    match reply? {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// A reply that is a list of text or nothing.
pub(super) fn list(reply: Option<Value>) -> Option<Vec<Option<Vec<u8>>>> {
    let Some(Value::Array(values)) = reply else { return None };
    let one = |value| match value {
        Value::BulkString(bytes) => Some(Some(bytes)),
        Value::Nil => Some(None),
        _ => None,
    };
    values.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_name_any_user() {
        let user = UserId::trusted("a:b/c d");
        let member = member(SdkAppId(7), &user, "g/1");
        assert_eq!(parse_member(&member), Some((SdkAppId(7), user, "g/1")));
        assert_eq!(parse_member("7"), None);
    }
}
