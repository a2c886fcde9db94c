//! A record as bytes, for directories outside this process. Fields are only added: nodes of two builds share it.

use linnet_types::{GroupId, NodeId, Platform, SdkAppId, UnixMillis, UserId};
use prost::Message;

use super::{Held, Placed, Record, Room};
use crate::directory::Session;

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(message, repeated, tag = "1")]
    sessions: Vec<SessionRow>,
    #[prost(message, repeated, tag = "2")]
    push: Vec<Timed>,
    #[prost(message, repeated, tag = "3")]
    ended: Vec<Timed>,
    #[prost(uint64, tag = "4")]
    kicked_at: u64,
    #[prost(string, repeated, tag = "5")]
    told: Vec<String>,
    #[prost(uint64, tag = "6")]
    told_rev: u64,
    #[prost(message, optional, tag = "7")]
    room: Option<RoomRow>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionRow {
    #[prost(string, tag = "1")]
    platform: String,
    #[prost(string, tag = "2")]
    instance: String,
    #[prost(string, tag = "3")]
    gateway: String,
    #[prost(uint64, tag = "4")]
    incarnation: u64,
    #[prost(string, tag = "5")]
    connection: String,
    #[prost(uint64, tag = "6")]
    signed_in: u64,
    #[prost(string, tag = "7")]
    ip: String,
    #[prost(uint64, tag = "8")]
    refreshed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Timed {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    at: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RoomRow {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(message, repeated, tag = "2")]
    seats: Vec<SeatRow>,
}

#[derive(Clone, PartialEq, Message)]
struct SeatRow {
    #[prost(string, tag = "1")]
    gateway: String,
    #[prost(string, tag = "2")]
    connection: String,
}

impl Record {
    /// Appends the record to `out`.
    pub(in crate::directory) fn encode(&self, out: &mut Vec<u8>) {
        let row = Row {
            sessions: self.sessions.iter().map(session_row).collect(),
            push: self.push.iter().map(|(phone, until)| timed(phone.wire(), *until)).collect(),
            ended: self.ended.iter().map(|(connection, at)| timed(connection, *at)).collect(),
            kicked_at: self.kicked_at.0,
            told: self.told.gateways.iter().map(|gateway| gateway.as_str().to_owned()).collect(),
            told_rev: self.told.rev,
            room: self.room.as_ref().map(room_row),
        };
        row.encode(out).expect("a vector grows");
    }

    /// Reads what [`Record::encode`] wrote for this user; `None` when it did not. What a newer build knows more is lost.
    pub(in crate::directory) fn decode(app: SdkAppId, user: &UserId, bytes: &[u8]) -> Option<Self> {
        let row = Row::decode(bytes).ok()?;
        let sessions = row.sessions.into_iter().map(|row| held(app, user, row));
        let push = row.push.into_iter().filter_map(|row| Some((Platform::parse(&row.name)?, UnixMillis(row.at))));
        Some(Self {
            sessions: sessions.collect::<Option<_>>()?,
            push: push.collect(),
            ended: row.ended.into_iter().map(|row| (row.name, UnixMillis(row.at))).collect(),
            kicked_at: UnixMillis(row.kicked_at),
            told: Placed { gateways: row.told.into_iter().map(NodeId::trusted).collect(), rev: row.told_rev },
            room: row.room.map(room),
        })
    }
}

fn timed(name: &str, at: UnixMillis) -> Timed {
    Timed { name: name.to_owned(), at: at.0 }
}

fn session_row(held: &Held) -> SessionRow {
    let session = &held.session;
    SessionRow {
        platform: session.platform.wire().to_owned(),
        instance: session.instance.clone(),
        gateway: session.gateway.as_str().to_owned(),
        incarnation: session.incarnation,
        connection: session.connection.clone(),
        signed_in: session.signed_in.0,
        ip: session.ip.clone(),
        refreshed: held.refreshed.0,
    }
}

fn held(app: SdkAppId, user: &UserId, row: SessionRow) -> Option<Held> {
    let session = Session {
        app,
        user: user.clone(),
        platform: Platform::parse(&row.platform)?,
        instance: row.instance,
        gateway: NodeId::trusted(row.gateway),
        incarnation: row.incarnation,
        connection: row.connection,
        signed_in: UnixMillis(row.signed_in),
        ip: row.ip,
    };
    Some(Held { session, refreshed: UnixMillis(row.refreshed) })
}

fn room_row(room: &Room) -> RoomRow {
    let seat = |(gateway, connection): &(NodeId, String)| SeatRow {
        gateway: gateway.as_str().to_owned(),
        connection: connection.clone(),
    };
    RoomRow { group: room.group.as_str().to_owned(), seats: room.seats.iter().map(seat).collect() }
}

fn room(row: RoomRow) -> Room {
    let seats = row.seats.into_iter().map(|seat| (NodeId::trusted(seat.gateway), seat.connection));
    Room { group: GroupId::trusted(row.group), seats: seats.collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::directory::{End, Policy, View};

    #[test]
    fn a_record_comes_back_as_it_was() {
        let (app, user) = (SdkAppId(1), UserId::trusted("alice"));
        let view = View { now: UnixMillis(1_700_000_000_000), gateways: BTreeMap::from([(NodeId::trusted("g1"), 7)]) };
        let policy = Policy { mode: 4, web_instances: 2 };
        let mut record = Record::default();
        for (platform, connection) in [(Platform::Web, "g1/1"), (Platform::IPhone, "g1/2"), (Platform::Linux, "g1/3")] {
            let row = SessionRow {
                platform: platform.wire().to_owned(),
                instance: format!("i-{connection}"),
                gateway: "g1".to_owned(),
                incarnation: 7,
                connection: connection.to_owned(),
                signed_in: view.now.0,
                ip: "2001:db8::7".to_owned(),
                refreshed: 0,
            };
            record.sign_in(held(app, &user, row).expect("a platform").session, policy, &view);
        }
        record.end("g1/2", End::Lost, &view);
        record.enter_room("g1/1", Some(GroupId::trusted("room")));
        record.change(&view);
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(app, &user, &bytes), Some(record));
        assert_eq!(Record::decode(app, &user, b""), Some(Record::default()));
        assert_eq!(Record::decode(app, &user, b"\xff"), None);
    }
}
