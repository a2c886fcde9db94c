//! Public error codes. Nothing else in the workspace writes a code number.
//!
//! A code is what a backend or client sees; each is documented with its meaning and the page that fixes it.

// Access layer.
/// Done.
pub const OK: u32 = 0;

// REST edge (`spec/rest-accounts.md` §1.5).
/// URL or query cannot be parsed.
pub const BAD_URL: u32 = 60002;
/// Body is not a JSON object, or is empty.
pub const NOT_JSON: u32 = 60003;
/// `identifier` missing or empty.
pub const NO_IDENTIFIER: u32 = 60004;
/// Authentication failed and no 70xxx code says why.
pub const AUTH_FAILED: u32 = 60005;
/// `sdkappid` is not a positive integer.
pub const BAD_SDKAPPID: u32 = 60006;
/// The command's rate of this app is used up.
pub const COMMAND_RATE: u32 = 60007;
/// Internal deadline, malformed HTTP or an oversize body.
pub const TIMEOUT: u32 = 60008;
/// No such service, command or method.
pub const UNKNOWN_COMMAND: u32 = 60009;
/// The caller is not an administrator of the app.
pub const NOT_ADMIN: u32 = 60010;
/// The app's request rate is used up.
pub const APP_RATE: u32 = 60011;
/// `sdkappid` missing.
pub const NO_SDKAPPID: u32 = 60012;
/// The reply could not be encoded.
pub const REPLY_TOO_LARGE: u32 = 60013;
/// An account in the body is not a string.
pub const ACCOUNT_TYPE: u32 = 60015;
/// The app is switched off.
pub const APP_DISABLED: u32 = 60016;
/// The command is switched off for this app.
pub const COMMAND_DISABLED: u32 = 60017;
/// Too many requests; retry later.
pub const OVERLOADED: u32 = 60018;
/// The caller's address is not on the app's list.
pub const IP_NOT_ALLOWED: u32 = 60021;

// UserSig and accounts (`spec/rest-accounts.md` §1.6.6).
/// UserSig expired.
pub const SIG_EXPIRED: u32 = 70001;
/// UserSig empty.
pub const SIG_EMPTY: u32 = 70002;
/// UserSig cannot be decoded, or is issued in the future.
pub const SIG_UNDECODABLE: u32 = 70003;
/// UserSig lacks a field or has one of a wrong type.
pub const SIG_INVALID: u32 = 70005;
/// UserSig signed with another key.
pub const SIG_WRONG_KEY: u32 = 70009;
/// UserSig is another user's.
pub const SIG_WRONG_USER: u32 = 70013;
/// UserSig is another app's.
pub const SIG_WRONG_APP: u32 = 70014;
/// The app has no key.
pub const SIG_NO_KEY: u32 = 70016;
/// No such SDKAppID.
pub const APP_UNKNOWN: u32 = 70020;
/// Too many failed attempts; wait a minute.
pub const SIG_RETRY: u32 = 70050;
/// The account is blocked.
pub const ACCOUNT_BLOCKED: u32 = 70051;
/// UserSig issued before the last kick.
pub const SIG_REVOKED: u32 = 70052;
/// No such account.
pub const ACCOUNT_UNKNOWN: u32 = 70107;
/// Internal time-out; retry.
pub const ACCOUNT_TIMEOUT: u32 = 70169;
/// The app's cap of accounts is reached.
pub const ACCOUNT_CAP: u32 = 70398;
/// Parameter illegal.
pub const ACCOUNT_BAD_PARAM: u32 = 70402;
/// Internal error.
pub const ACCOUNT_INTERNAL: u32 = 70500;
/// Deleting accounts is switched off for this app.
pub const ACCOUNT_DELETE_OFF: u32 = 71000;
/// User status is switched off for this app.
pub const STATUS_OFF: u32 = 72001;

// Content (`spec/rest-messages.md` §8.2).
/// Text refused by moderation.
pub const TEXT_BLOCKED: u32 = 80001;
/// Message body over the app's limit.
pub const MSG_TOO_LONG: u32 = 80002;
/// The before-webhook failed under the policy `block`.
pub const CALLBACK_FAILED: u32 = 80003;
/// Image refused by moderation.
pub const IMAGE_BLOCKED: u32 = 80004;

// One-to-one messages (`spec/rest-messages.md` §8.4).
/// Invalid request.
pub const MSG_BAD_PARAM: u32 = 20001;
/// Sender or receiver unknown.
pub const C2C_NO_USER: u32 = 20003;
/// Could not reach the owner; retry.
pub const C2C_NETWORK: u32 = 20004;
/// Internal error; retry.
pub const C2C_INTERNAL: u32 = 20005;
/// Refused by the app's before-webhook.
pub const C2C_REFUSED: u32 = 20006;
/// The sender is on the receiver's block list.
pub const C2C_BLOCKED: u32 = 20007;
/// Not friends, and the app's friend check is on.
pub const C2C_NOT_FRIENDS: u32 = 20009;
/// The sender is muted.
pub const C2C_MUTED: u32 = 20012;
/// Past the recall window.
pub const C2C_RECALL_LATE: u32 = 20016;
/// No such message.
pub const C2C_NO_MSG: u32 = 20022;
/// Already recalled.
pub const C2C_ALREADY_RECALLED: u32 = 20023;
/// No such message.
pub const C2C_NOT_FOUND: u32 = 20026;
/// Message version conflict.
pub const C2C_VERSION: u32 = 20027;

// Push tokens (`spec/rest-messages.md` §8.4).
/// No push token.
pub const PUSH_TOKEN_EMPTY: u32 = 22003;
/// The push token is too long.
pub const PUSH_TOKEN_LONG: u32 = 22004;

// REST message checks (`spec/rest-messages.md` §8.5).
/// Body lacks a field or has one of a wrong type.
pub const OPENIM_BAD_JSON: u32 = 90001;
/// `MsgBody` has a wrong shape.
pub const BODY_SHAPE: u32 = 90002;
/// `To_Account` missing, not a string, or impossible.
pub const TO_ACCOUNT: u32 = 90003;
/// `MsgSeq` invalid.
pub const MSG_SEQ: u32 = 90004;
/// `MsgRandom` missing or not an integer.
pub const MSG_RANDOM: u32 = 90005;
/// `MsgTimeStamp` missing or not an integer.
pub const MSG_TIME: u32 = 90006;
/// `MsgBody` is not an array.
pub const BODY_NOT_ARRAY: u32 = 90007;
/// `From_Account` missing or unknown.
pub const FROM_ACCOUNT: u32 = 90008;
/// Not in message format.
pub const BODY_FORMAT: u32 = 90010;
/// More than 500 receivers.
pub const TOO_MANY_RECEIVERS: u32 = 90011;
/// `To_Account` is not registered.
pub const TO_ACCOUNT_UNKNOWN: u32 = 90012;
/// Offline time out of range.
pub const LIFETIME: u32 = 90026;
/// Batch `To_Account` is not an array.
pub const BATCH_NOT_ARRAY: u32 = 90028;
/// Batch `To_Account` is empty.
pub const BATCH_EMPTY: u32 = 90029;
/// `SyncOtherMachine` is not an integer.
pub const SYNC_OTHER: u32 = 90031;
/// `OfflinePushInfo` has a wrong shape.
pub const OFFLINE_PUSH: u32 = 90043;
/// `MsgLifeTime` is not an integer.
pub const LIFETIME_TYPE: u32 = 90044;
/// Account does not exist.
pub const MSG_ACCOUNT_UNKNOWN: u32 = 90048;
/// `MsgKey` invalid.
pub const MSG_KEY: u32 = 90054;
/// Batch message over 12 KB.
pub const BATCH_TOO_LONG: u32 = 90055;
/// Batch send rate exceeded.
pub const BATCH_RATE: u32 = 90057;
/// Internal error.
pub const OPENIM_INTERNAL: u32 = 91000;
/// Web instance kicked: too many web instances.
pub const WEB_INSTANCES: u32 = 91101;
/// Request over 12 KB.
pub const REQUEST_TOO_LONG: u32 = 93000;

// Groups (`spec/rest-groups.md` §7).
/// Internal error; retry.
pub const GROUP_INTERNAL: u32 = 10002;
/// Invalid parameter.
pub const GROUP_BAD_PARAM: u32 = 10004;
/// Too many accounts in one request.
pub const GROUP_TOO_MANY: u32 = 10005;
/// Operation too frequent.
pub const GROUP_RATE: u32 = 10006;
/// No permission, not a member, or not supported by the type.
pub const GROUP_NO_RIGHT: u32 = 10007;
/// The owner may not leave.
pub const GROUP_OWNER_QUIT: u32 = 10009;
/// No such group, or dismissed.
pub const GROUP_UNKNOWN: u32 = 10010;
/// Already a member.
pub const GROUP_ALREADY_IN: u32 = 10013;
/// The group is full.
pub const GROUP_FULL: u32 = 10014;
/// Cannot be the id of a group.
pub const GROUP_BAD_ID: u32 = 10015;
/// Refused by the app's webhook.
pub const GROUP_VETO: u32 = 10016;
/// The sender is muted.
pub const GROUP_MUTED: u32 = 10017;
/// Reply over 1 MB.
pub const GROUP_REPLY_LARGE: u32 = 10018;
/// Account does not exist.
pub const GROUP_NO_USER: u32 = 10019;
/// Group id taken.
pub const GROUP_ID_TAKEN: u32 = 10021;
/// Over the group's message rate.
pub const GROUP_TOO_FAST: u32 = 10023;
/// Application already handled.
pub const GROUP_HANDLED: u32 = 10024;
/// Group id already used by this owner.
pub const GROUP_ID_YOURS: u32 = 10025;
/// Command switched off for this app.
pub const GROUP_CMD_OFF: u32 = 10026;
/// Message to recall not found.
pub const GROUP_NO_MSG: u32 = 10030;
/// Past the recall window.
pub const GROUP_RECALL_LATE: u32 = 10031;
/// Message cannot be recalled.
pub const GROUP_NOT_RECALLABLE: u32 = 10032;
/// The group type cannot recall.
pub const GROUP_RECALL_TYPE: u32 = 10033;
/// Live-room quota reached.
pub const GROUP_LIVE_CAP: u32 = 10036;
/// The user's quota of groups is reached.
pub const GROUP_USER_CAP: u32 = 10037;
/// Member cap.
pub const GROUP_MEMBER_CAP: u32 = 10038;
/// The app forbids recall.
pub const GROUP_RECALL_OFF: u32 = 10041;
/// The group type has no history.
pub const GROUP_NO_ROAMING: u32 = 10044;
/// More than 30 mentions.
pub const GROUP_MENTIONS: u32 = 10053;
/// Too many members; page.
pub const GROUP_PAGE: u32 = 10054;
/// Online-only messages have no receipts.
pub const GROUP_ONLINE_RECEIPT: u32 = 10061;
/// No receipt.
pub const GROUP_NO_RECEIPT: u32 = 10062;
/// Topics of communities are not switched on.
pub const TOPICS_OFF: u32 = 11000;

// Profiles and conversations (`spec/rest-messages.md` §8.7).
/// Request invalid.
pub const PROFILE_BAD_PARAM: u32 = 40001;
/// No account given.
pub const PROFILE_NO_ACCOUNT: u32 = 40002;
/// Account not imported.
pub const PROFILE_ACCOUNT_UNKNOWN: u32 = 40003;
/// Internal error.
pub const PROFILE_INTERNAL: u32 = 40006;
/// No right to write the tag.
pub const PROFILE_NO_WRITE: u32 = 40008;
/// No such tag.
pub const PROFILE_TAG: u32 = 40009;
/// Value over 500 bytes.
pub const PROFILE_LENGTH: u32 = 40601;
/// Value of a standard tag illegal.
pub const PROFILE_VALUE: u32 = 40605;
/// Value of a wrong type.
pub const PROFILE_TYPE: u32 = 40610;
/// Account not imported.
pub const CONTACT_ACCOUNT_UNKNOWN: u32 = 50001;
/// Parameter invalid.
pub const CONTACT_BAD_PARAM: u32 = 50002;
/// Internal error.
pub const CONTACT_INTERNAL: u32 = 50004;
/// More than 50 pinned conversations.
pub const CONTACT_PINNED_CAP: u32 = 51012;

// The client protocol's own codes, outside every documented range.
/// A client frame is malformed or of an unknown kind.
pub const FRAME_BAD: u32 = 200001;
/// A client frame is over the size limit.
pub const FRAME_TOO_LARGE: u32 = 200002;
/// The first frame must sign in.
pub const NOT_SIGNED_IN: u32 = 200003;
/// The owner or its store is overloaded or moving; retry after the given time.
pub const BUSY: u32 = 200004;
/// This connection sends too fast.
pub const CONN_RATE: u32 = 200005;
/// The node is draining; reconnect.
pub const GOING_AWAY: u32 = 200006;

/// Codes an app's webhook may answer with and that pass through to the caller (`spec/webhooks.md` §1.6).
#[must_use]
pub fn is_app_defined(code: u32) -> bool {
    (10_100..=10_200).contains(&code) || (120_001..=130_000).contains(&code)
}
