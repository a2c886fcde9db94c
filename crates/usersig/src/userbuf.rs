//! The `userbuf` of room permissions (`spec/rest-accounts.md` §1.6.7). Chat carries it; only tools read it.

use std::fmt;

/// Permission to enter one room of the real-time media product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomTicket {
    /// The account it is for, at most 65,535 bytes.
    pub account: String,
    /// The app.
    pub sdkappid: u32,
    /// Numeric room id; 0 when the room has a text id.
    pub room: u32,
    /// Text room id, at most 65,535 bytes.
    pub room_text: Option<String>,
    /// Unix second at which it ends.
    pub deadline_s: u32,
    /// What is allowed, as bits.
    pub privileges: u32,
}

impl RoomTicket {
    /// The big-endian layout; version 1 when the room has a text id. `None` when a text is too long for it.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![u8::from(self.room_text.is_some())];
        put_text(&mut bytes, &self.account)?;
        for number in [self.sdkappid, self.room, self.deadline_s, self.privileges, 0] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        if let Some(room) = &self.room_text {
            put_text(&mut bytes, room)?;
        }
        Some(bytes)
    }

    /// Reads the layout; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, mut rest) = bytes.split_first()?;
        let account = take_text(&mut rest)?;
        let mut numbers = [0; 5];
        for number in &mut numbers {
            *number = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
        }
        let room_text = match version {
            0 => None,
            1 => Some(take_text(&mut rest)?),
            _ => return None,
        };
        let [sdkappid, room, deadline_s, privileges, _account_type] = numbers;
        rest.is_empty().then_some(Self { account, sdkappid, room, room_text, deadline_s, privileges })
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(n)?;
    *rest = left;
    Some(taken)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let len = u16::from_be_bytes(take(rest, 2)?.try_into().ok()?);
    String::from_utf8(take(rest, usize::from(len))?.to_vec()).ok()
}

impl fmt::Display for RoomTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = self.room_text.clone().unwrap_or_else(|| self.room.to_string());
        write!(f, "{} may enter room {room} until {}, rights {:#x}", self.account, self.deadline_s, self.privileges)
    }
}
