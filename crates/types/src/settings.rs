//! What an app's operator can set: switches, limits and the webhook, by the names of `linnet app set`.
//!
//! Every setting has a default, so an app stores only what differs. A new one is added in four places of this file:
//! field, default, `set`, `list`; the test below fails when one is missing.

use serde::{Deserialize, Serialize};

/// The settings of one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppSettings {
    /// Largest message body in bytes of UTF-8 (`spec/rest-messages.md` §1).
    #[serde(rename = "limit.message_bytes")]
    pub message_bytes: u32,
    /// Most administrators of the app (`spec/rest-accounts.md` §1.8).
    #[serde(rename = "limit.admins")]
    pub admins: u32,
    /// Most accounts; 0 = no cap.
    #[serde(rename = "limit.accounts")]
    pub accounts: u64,
    /// Conversations in one user's list; the rest is paged (`spec/rest-messages.md` §1).
    #[serde(rename = "limit.conversations")]
    pub conversations: u32,
    /// Pinned conversations of one user.
    #[serde(rename = "limit.pinned")]
    pub pinned: u32,
    /// Groups one user may be in (`spec/rest-groups.md` §1.6).
    #[serde(rename = "limit.groups_per_user")]
    pub groups_per_user: u32,
    /// Most members of a Work group.
    #[serde(rename = "group.members_work")]
    pub members_work: u32,
    /// Most members of a Public group.
    #[serde(rename = "group.members_public")]
    pub members_public: u32,
    /// Most members of a Meeting.
    #[serde(rename = "group.members_meeting")]
    pub members_meeting: u32,
    /// Most members of a Community.
    #[serde(rename = "group.members_community")]
    pub members_community: u32,
    /// Messages a second through one stored group; 0 = no limit (`spec/rest-groups.md` §4.2).
    #[serde(rename = "group.msg_rate")]
    pub group_rate: u32,
    /// Answer 10023 instead of success with a drop reason when a stored group is over its rate.
    #[serde(rename = "group.rate_error")]
    pub group_rate_error: bool,
    /// A Work group is hidden from its members until the owner's first message.
    #[serde(rename = "group.work_requires_activation")]
    pub work_activation: bool,
    /// Longest group name in bytes.
    #[serde(rename = "group.name_bytes")]
    pub name_bytes: u32,
    /// Members up to which fan-out names users instead of a subject.
    #[serde(rename = "group.small")]
    pub small_group: u32,
    /// Messages a second through one live room; 0 = no limit.
    #[serde(rename = "live.msg_rate")]
    pub live_rate: u32,
    /// Messages of the last 24 h a newcomer to a live room gets; 0 = off (`spec/rest-groups.md` §4.4).
    #[serde(rename = "live.replay")]
    pub live_replay: u32,
    /// Live rooms a native client may be in at once; Web always 1.
    #[serde(rename = "live.rooms_per_user")]
    pub live_rooms_per_user: u32,
    /// Viewers up to which each join and leave has its own tip.
    #[serde(rename = "live.tip_full")]
    pub live_tip_full: u32,
    /// Days messages are kept: 7, 30, 90, 365; more = for ever.
    #[serde(rename = "history.days")]
    pub retention_days: u32,
    /// Seconds in which a client may recall its message.
    #[serde(rename = "message.recall_s")]
    pub recall_s: u32,
    /// One-to-one messages only between friends.
    #[serde(rename = "c2c.friend_check")]
    pub friend_check: bool,
    /// A blocked sender is told success.
    #[serde(rename = "c2c.blocked_as_ok")]
    pub blocked_as_ok: bool,
    /// A first sign-in with a valid UserSig makes the account.
    #[serde(rename = "account.auto_create")]
    pub auto_account: bool,
    /// `account_delete` is allowed.
    #[serde(rename = "account.delete")]
    pub account_delete: bool,
    /// Web sessions of one user at once.
    #[serde(rename = "login.web_instances")]
    pub web_instances: u32,
    /// Devices at once: 1 one; 2 one of phone or desktop and Web; 3 phone, desktop and Web; 4 one of each platform.
    #[serde(rename = "login.mode")]
    pub login_mode: u32,
    /// User status can be queried and watched.
    #[serde(rename = "status.enabled")]
    pub status: bool,
    /// Calls a second of one REST command, where the catalogue says nothing else.
    #[serde(rename = "rest.command_rate")]
    pub command_rate: u32,
    /// Exceptions: `service/command=n` separated by commas.
    #[serde(rename = "rest.command_rates")]
    pub command_rates: String,
    /// REST calls a second of the whole app; 0 = no limit.
    #[serde(rename = "rest.app_rate")]
    pub app_rate: u32,
    /// Custom profile keywords, separated by commas: letters, at most 8 bytes each, at most 20.
    #[serde(rename = "profile.custom")]
    pub profile_tags: String,
    /// Custom group keys, separated by commas: at most 16 bytes each, at most 20.
    #[serde(rename = "group.custom")]
    pub group_keys: String,
    /// Custom member keys, separated by commas: at most 16 bytes each, at most 5.
    #[serde(rename = "group.member_custom")]
    pub member_keys: String,
    /// Where webhooks go; empty = off.
    #[serde(rename = "webhook.url")]
    pub webhook_url: String,
    /// Webhook commands that are on, separated by commas, or `all`.
    #[serde(rename = "webhook.events")]
    pub webhook_events: String,
    /// Token that webhooks are signed with.
    #[serde(rename = "webhook.token")]
    pub webhook_token: String,
    /// Sign webhooks (`spec/webhooks.md` §1.3).
    #[serde(rename = "webhook.auth")]
    pub webhook_auth: bool,
    /// Time an app's server has to answer, in milliseconds.
    #[serde(rename = "webhook.timeout_ms")]
    pub webhook_timeout_ms: u32,
    /// What happens when a before-webhook fails: `pass` or `block`.
    #[serde(rename = "webhook.before_failure")]
    pub webhook_before_failure: String,
    /// Retry after-webhooks that timed out.
    #[serde(rename = "webhook.after_retry")]
    pub webhook_after_retry: bool,
    /// After-webhooks of the app in flight at once, for each callback node.
    #[serde(rename = "webhook.max_inflight")]
    pub webhook_max_inflight: u32,
    /// Webhook targets on private and loopback addresses are allowed.
    #[serde(rename = "webhook.allow_private")]
    pub webhook_allow_private: bool,
    /// Where offline pushes go: the app's own HTTP provider (`docs/push.md`); empty = no offline push.
    #[serde(rename = "push.url")]
    pub push_url: String,
    /// Key that requests to the push provider are signed with; empty = unsigned.
    #[serde(rename = "push.key")]
    pub push_key: String,
    /// A push provider on a private or loopback address is allowed.
    #[serde(rename = "push.allow_private")]
    pub push_allow_private: bool,
    /// Time a push provider has to answer, in milliseconds.
    #[serde(rename = "push.timeout_ms")]
    pub push_timeout_ms: u32,
    /// Requests a second to the push provider.
    #[serde(rename = "push.rate")]
    pub push_rate: u32,
    /// Receivers of one notification in one request to the push provider.
    #[serde(rename = "push.batch")]
    pub push_batch: u32,
    /// Seconds after which a push that did not get through is given up.
    #[serde(rename = "push.ttl_s")]
    pub push_ttl_s: u32,
    /// Push to devices that are away while their user is online on another one.
    #[serde(rename = "push.when_online")]
    pub push_when_online: bool,
    /// Text of a push that stands for several messages; `{count}` is how many.
    #[serde(rename = "push.digest_text")]
    pub push_digest_text: String,
}

impl Default for AppSettings {
    fn default() -> Self {
        Self {
            message_bytes: 12_288,
            admins: 10,
            accounts: 0,
            conversations: 100,
            pinned: 50,
            groups_per_user: 3_000,
            members_work: 6_000,
            members_public: 6_000,
            members_meeting: 6_000,
            members_community: 100_000,
            group_rate: 40,
            group_rate_error: false,
            work_activation: true,
            name_bytes: 100,
            small_group: 200,
            live_rate: 40,
            live_replay: 0,
            live_rooms_per_user: 1,
            live_tip_full: 300,
            retention_days: 7,
            recall_s: 120,
            friend_check: false,
            blocked_as_ok: true,
            auto_account: true,
            account_delete: true,
            web_instances: 1,
            login_mode: 4,
            status: true,
            command_rate: 200,
            command_rates: String::new(),
            app_rate: 0,
            profile_tags: String::new(),
            group_keys: String::new(),
            member_keys: String::new(),
            webhook_url: String::new(),
            webhook_events: String::new(),
            webhook_token: String::new(),
            webhook_auth: false,
            webhook_timeout_ms: 2_000,
            webhook_before_failure: "pass".to_owned(),
            webhook_after_retry: false,
            webhook_max_inflight: 256,
            webhook_allow_private: false,
            push_url: String::new(),
            push_key: String::new(),
            push_allow_private: false,
            push_timeout_ms: 5_000,
            push_rate: 100,
            push_batch: 100,
            push_ttl_s: 86_400,
            push_when_online: false,
            push_digest_text: "{count} new messages".to_owned(),
        }
    }
}

/// One setting as `linnet app show` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Name for `linnet app set`.
    pub name: &'static str,
    /// Value in force.
    pub value: String,
    /// Value when never set.
    pub default: String,
    /// What it does.
    pub doc: &'static str,
}

impl AppSettings {
    /// Sets one setting from its text; in force for the next operation.
    ///
    /// # Errors
    /// A sentence for the operator: unknown name, wrong type or out of range.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name {
            "limit.message_bytes" => put(&mut self.message_bytes, name, text, (256, 1048576)),
            "limit.admins" => put(&mut self.admins, name, text, (1, 100)),
            "limit.accounts" => put(&mut self.accounts, name, text, (0, 9223372036854775808)),
            "limit.conversations" => put(&mut self.conversations, name, text, (10, 500)),
            "limit.pinned" => put(&mut self.pinned, name, text, (1, 500)),
            "limit.groups_per_user" => put(&mut self.groups_per_user, name, text, (1, 10000)),
            "group.members_work" => put(&mut self.members_work, name, text, (2, 100000)),
            "group.members_public" => put(&mut self.members_public, name, text, (2, 100000)),
            "group.members_meeting" => put(&mut self.members_meeting, name, text, (2, 100000)),
            "group.members_community" => put(&mut self.members_community, name, text, (2, 1000000)),
            "group.msg_rate" => put(&mut self.group_rate, name, text, (0, 100000)),
            "group.rate_error" => put(&mut self.group_rate_error, name, text, (0, 0)),
            "group.work_requires_activation" => put(&mut self.work_activation, name, text, (0, 0)),
            "group.name_bytes" => put(&mut self.name_bytes, name, text, (10, 500)),
            "group.small" => put(&mut self.small_group, name, text, (1, 10000)),
            "live.msg_rate" => put(&mut self.live_rate, name, text, (0, 1000000)),
            "live.replay" => put(&mut self.live_replay, name, text, (0, 50)),
            "live.rooms_per_user" => put(&mut self.live_rooms_per_user, name, text, (1, 100)),
            "live.tip_full" => put(&mut self.live_tip_full, name, text, (0, 100000)),
            "history.days" => put(&mut self.retention_days, name, text, (1, 36500)),
            "message.recall_s" => put(&mut self.recall_s, name, text, (0, 31536000)),
            "c2c.friend_check" => put(&mut self.friend_check, name, text, (0, 0)),
            "c2c.blocked_as_ok" => put(&mut self.blocked_as_ok, name, text, (0, 0)),
            "account.auto_create" => put(&mut self.auto_account, name, text, (0, 0)),
            "account.delete" => put(&mut self.account_delete, name, text, (0, 0)),
            "login.web_instances" => put(&mut self.web_instances, name, text, (1, 10)),
            "login.mode" => put(&mut self.login_mode, name, text, (1, 4)),
            "status.enabled" => put(&mut self.status, name, text, (0, 0)),
            "rest.command_rate" => put(&mut self.command_rate, name, text, (1, 1000000)),
            "rest.command_rates" => put(&mut self.command_rates, name, text, (0, 0)),
            "rest.app_rate" => put(&mut self.app_rate, name, text, (0, 10000000)),
            "profile.custom" => put(&mut self.profile_tags, name, text, (0, 0)),
            "group.custom" => put(&mut self.group_keys, name, text, (0, 0)),
            "group.member_custom" => put(&mut self.member_keys, name, text, (0, 0)),
            "webhook.url" => put(&mut self.webhook_url, name, text, (0, 0)),
            "webhook.events" => put(&mut self.webhook_events, name, text, (0, 0)),
            "webhook.token" => put(&mut self.webhook_token, name, text, (0, 0)),
            "webhook.auth" => put(&mut self.webhook_auth, name, text, (0, 0)),
            "webhook.timeout_ms" => put(&mut self.webhook_timeout_ms, name, text, (50, 10000)),
            "webhook.before_failure" => put(&mut self.webhook_before_failure, name, text, (0, 0)),
            "webhook.after_retry" => put(&mut self.webhook_after_retry, name, text, (0, 0)),
            "webhook.max_inflight" => put(&mut self.webhook_max_inflight, name, text, (1, 256)),
            "webhook.allow_private" => put(&mut self.webhook_allow_private, name, text, (0, 0)),
            "push.url" => put(&mut self.push_url, name, text, (0, 0)),
            "push.key" => put(&mut self.push_key, name, text, (0, 0)),
            "push.allow_private" => put(&mut self.push_allow_private, name, text, (0, 0)),
            "push.timeout_ms" => put(&mut self.push_timeout_ms, name, text, (50, 60000)),
            "push.rate" => put(&mut self.push_rate, name, text, (1, 100000)),
            "push.batch" => put(&mut self.push_batch, name, text, (1, 500)),
            "push.ttl_s" => put(&mut self.push_ttl_s, name, text, (1, 604800)),
            "push.when_online" => put(&mut self.push_when_online, name, text, (0, 0)),
            "push.digest_text" => put(&mut self.push_digest_text, name, text, (0, 0)),
            _ => Err(format!("{name}: no such setting; `linnet app show` lists them")),
        }
    }

    /// Every setting, in the order of the documentation.
    #[must_use]
    pub fn list(&self) -> Vec<Shown> {
        let fresh = Self::default();
        vec![
            Shown {
                name: "limit.message_bytes",
                value: self.message_bytes.show(),
                default: fresh.message_bytes.show(),
                doc: "Largest message body in bytes of UTF-8 (`spec/rest-messages.md` §1).",
            },
            Shown {
                name: "limit.admins",
                value: self.admins.show(),
                default: fresh.admins.show(),
                doc: "Most administrators of the app (`spec/rest-accounts.md` §1.8).",
            },
            Shown {
                name: "limit.accounts",
                value: self.accounts.show(),
                default: fresh.accounts.show(),
                doc: "Most accounts; 0 = no cap.",
            },
            Shown {
                name: "limit.conversations",
                value: self.conversations.show(),
                default: fresh.conversations.show(),
                doc: "Conversations in one user's list; the rest is paged (`spec/rest-messages.md` §1).",
            },
            Shown {
                name: "limit.pinned",
                value: self.pinned.show(),
                default: fresh.pinned.show(),
                doc: "Pinned conversations of one user.",
            },
            Shown {
                name: "limit.groups_per_user",
                value: self.groups_per_user.show(),
                default: fresh.groups_per_user.show(),
                doc: "Groups one user may be in (`spec/rest-groups.md` §1.6).",
            },
            Shown {
                name: "group.members_work",
                value: self.members_work.show(),
                default: fresh.members_work.show(),
                doc: "Most members of a Work group.",
            },
            Shown {
                name: "group.members_public",
                value: self.members_public.show(),
                default: fresh.members_public.show(),
                doc: "Most members of a Public group.",
            },
            Shown {
                name: "group.members_meeting",
                value: self.members_meeting.show(),
                default: fresh.members_meeting.show(),
                doc: "Most members of a Meeting.",
            },
            Shown {
                name: "group.members_community",
                value: self.members_community.show(),
                default: fresh.members_community.show(),
                doc: "Most members of a Community.",
            },
            Shown {
                name: "group.msg_rate",
                value: self.group_rate.show(),
                default: fresh.group_rate.show(),
                doc: "Messages a second through one stored group; 0 = no limit (`spec/rest-groups.md` §4.2).",
            },
            Shown {
                name: "group.rate_error",
                value: self.group_rate_error.show(),
                default: fresh.group_rate_error.show(),
                doc: "Answer 10023 instead of success with a drop reason when a stored group is over its rate.",
            },
            Shown {
                name: "group.work_requires_activation",
                value: self.work_activation.show(),
                default: fresh.work_activation.show(),
                doc: "A Work group is hidden from its members until the owner's first message.",
            },
            Shown {
                name: "group.name_bytes",
                value: self.name_bytes.show(),
                default: fresh.name_bytes.show(),
                doc: "Longest group name in bytes.",
            },
            Shown {
                name: "group.small",
                value: self.small_group.show(),
                default: fresh.small_group.show(),
                doc: "Members up to which fan-out names users instead of a subject.",
            },
            Shown {
                name: "live.msg_rate",
                value: self.live_rate.show(),
                default: fresh.live_rate.show(),
                doc: "Messages a second through one live room; 0 = no limit.",
            },
            Shown {
                name: "live.replay",
                value: self.live_replay.show(),
                default: fresh.live_replay.show(),
                doc: "Messages of the last 24 h a newcomer to a live room gets; 0 = off (`spec/rest-groups.md` §4.4).",
            },
            Shown {
                name: "live.rooms_per_user",
                value: self.live_rooms_per_user.show(),
                default: fresh.live_rooms_per_user.show(),
                doc: "Live rooms a native client may be in at once; Web always 1.",
            },
            Shown {
                name: "live.tip_full",
                value: self.live_tip_full.show(),
                default: fresh.live_tip_full.show(),
                doc: "Viewers up to which each join and leave has its own tip.",
            },
            Shown {
                name: "history.days",
                value: self.retention_days.show(),
                default: fresh.retention_days.show(),
                doc: "Days messages are kept: 7, 30, 90, 365; more = for ever.",
            },
            Shown {
                name: "message.recall_s",
                value: self.recall_s.show(),
                default: fresh.recall_s.show(),
                doc: "Seconds in which a client may recall its message.",
            },
            Shown {
                name: "c2c.friend_check",
                value: self.friend_check.show(),
                default: fresh.friend_check.show(),
                doc: "One-to-one messages only between friends.",
            },
            Shown {
                name: "c2c.blocked_as_ok",
                value: self.blocked_as_ok.show(),
                default: fresh.blocked_as_ok.show(),
                doc: "A blocked sender is told success.",
            },
            Shown {
                name: "account.auto_create",
                value: self.auto_account.show(),
                default: fresh.auto_account.show(),
                doc: "A first sign-in with a valid UserSig makes the account.",
            },
            Shown {
                name: "account.delete",
                value: self.account_delete.show(),
                default: fresh.account_delete.show(),
                doc: "`account_delete` is allowed.",
            },
            Shown {
                name: "login.web_instances",
                value: self.web_instances.show(),
                default: fresh.web_instances.show(),
                doc: "Web sessions of one user at once.",
            },
            Shown {
                name: "login.mode",
                value: self.login_mode.show(),
                default: fresh.login_mode.show(),
                doc: "Devices at once: 1 one; 2 one of phone or desktop and Web; 3 phone, desktop and Web; 4 one of each platform.",
            },
            Shown {
                name: "status.enabled",
                value: self.status.show(),
                default: fresh.status.show(),
                doc: "User status can be queried and watched.",
            },
            Shown {
                name: "rest.command_rate",
                value: self.command_rate.show(),
                default: fresh.command_rate.show(),
                doc: "Calls a second of one REST command, where the catalogue says nothing else.",
            },
            Shown {
                name: "rest.command_rates",
                value: self.command_rates.show(),
                default: fresh.command_rates.show(),
                doc: "Exceptions: `service/command=n` separated by commas.",
            },
            Shown {
                name: "rest.app_rate",
                value: self.app_rate.show(),
                default: fresh.app_rate.show(),
                doc: "REST calls a second of the whole app; 0 = no limit.",
            },
            Shown {
                name: "profile.custom",
                value: self.profile_tags.show(),
                default: fresh.profile_tags.show(),
                doc: "Custom profile keywords, separated by commas: letters, at most 8 bytes each, at most 20.",
            },
            Shown {
                name: "group.custom",
                value: self.group_keys.show(),
                default: fresh.group_keys.show(),
                doc: "Custom group keys, separated by commas: at most 16 bytes each, at most 20.",
            },
            Shown {
                name: "group.member_custom",
                value: self.member_keys.show(),
                default: fresh.member_keys.show(),
                doc: "Custom member keys, separated by commas: at most 16 bytes each, at most 5.",
            },
            Shown {
                name: "webhook.url",
                value: self.webhook_url.show(),
                default: fresh.webhook_url.show(),
                doc: "Where webhooks go; empty = off.",
            },
            Shown {
                name: "webhook.events",
                value: self.webhook_events.show(),
                default: fresh.webhook_events.show(),
                doc: "Webhook commands that are on, separated by commas, or `all`.",
            },
            Shown {
                name: "webhook.token",
                value: self.webhook_token.show(),
                default: fresh.webhook_token.show(),
                doc: "Token that webhooks are signed with.",
            },
            Shown {
                name: "webhook.auth",
                value: self.webhook_auth.show(),
                default: fresh.webhook_auth.show(),
                doc: "Sign webhooks (`spec/webhooks.md` §1.3).",
            },
            Shown {
                name: "webhook.timeout_ms",
                value: self.webhook_timeout_ms.show(),
                default: fresh.webhook_timeout_ms.show(),
                doc: "Time an app's server has to answer, in milliseconds.",
            },
            Shown {
                name: "webhook.before_failure",
                value: self.webhook_before_failure.show(),
                default: fresh.webhook_before_failure.show(),
                doc: "What happens when a before-webhook fails: `pass` or `block`.",
            },
            Shown {
                name: "webhook.after_retry",
                value: self.webhook_after_retry.show(),
                default: fresh.webhook_after_retry.show(),
                doc: "Retry after-webhooks that timed out.",
            },
            Shown {
                name: "webhook.max_inflight",
                value: self.webhook_max_inflight.show(),
                default: fresh.webhook_max_inflight.show(),
                doc: "After-webhooks of the app in flight at once, for each callback node.",
            },
            Shown {
                name: "webhook.allow_private",
                value: self.webhook_allow_private.show(),
                default: fresh.webhook_allow_private.show(),
                doc: "Webhook targets on private and loopback addresses are allowed.",
            },
            Shown {
                name: "push.url",
                value: self.push_url.show(),
                default: fresh.push_url.show(),
                doc: "Where offline pushes go: the app's own HTTP provider (`docs/push.md`); empty = no offline push.",
            },
            Shown {
                name: "push.key",
                value: self.push_key.show(),
                default: fresh.push_key.show(),
                doc: "Key that requests to the push provider are signed with; empty = unsigned.",
            },
            Shown {
                name: "push.allow_private",
                value: self.push_allow_private.show(),
                default: fresh.push_allow_private.show(),
                doc: "A push provider on a private or loopback address is allowed.",
            },
            Shown {
                name: "push.timeout_ms",
                value: self.push_timeout_ms.show(),
                default: fresh.push_timeout_ms.show(),
                doc: "Time a push provider has to answer, in milliseconds.",
            },
            Shown {
                name: "push.rate",
                value: self.push_rate.show(),
                default: fresh.push_rate.show(),
                doc: "Requests a second to the push provider.",
            },
            Shown {
                name: "push.batch",
                value: self.push_batch.show(),
                default: fresh.push_batch.show(),
                doc: "Receivers of one notification in one request to the push provider.",
            },
            Shown {
                name: "push.ttl_s",
                value: self.push_ttl_s.show(),
                default: fresh.push_ttl_s.show(),
                doc: "Seconds after which a push that did not get through is given up.",
            },
            Shown {
                name: "push.when_online",
                value: self.push_when_online.show(),
                default: fresh.push_when_online.show(),
                doc: "Push to devices that are away while their user is online on another one.",
            },
            Shown {
                name: "push.digest_text",
                value: self.push_digest_text.show(),
                default: fresh.push_digest_text.show(),
                doc: "Text of a push that stands for several messages; `{count}` is how many.",
            },
        ]
    }

    /// Whether the webhook `command` (for example `Group.CallbackAfterSendMsg`) is on.
    #[must_use]
    pub fn webhook_on(&self, command: &str) -> bool {
        !self.webhook_url.is_empty() && words(&self.webhook_events).any(|word| word == "all" || word == command)
    }

    /// The calls a second allowed for one REST command, `catalogue` being the documented figure.
    #[must_use]
    pub fn rest_rate(&self, service_command: &str, catalogue: Option<u32>) -> u32 {
        words(&self.command_rates)
            .filter_map(|word| word.split_once('='))
            .find(|(name, _)| *name == service_command)
            .and_then(|(_, rate)| rate.parse().ok())
            .or(catalogue)
            .unwrap_or(self.command_rate)
    }
}

/// The words of a comma-separated setting.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn put<T: Setting>(field: &mut T, name: &str, text: &str, range: (u64, u64)) -> Result<(), String> {
    *field = T::parse(text, range).map_err(|why| format!("{name}: {why}"))?;
    Ok(())
}

trait Setting: Sized {
    fn parse(text: &str, range: (u64, u64)) -> Result<Self, String>;
    fn show(&self) -> String;
}

impl Setting for bool {
    fn parse(text: &str, _: (u64, u64)) -> Result<Self, String> {
        text.parse().map_err(|_| "true or false".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for u64 {
    fn parse(text: &str, (low, high): (u64, u64)) -> Result<Self, String> {
        let n = text.parse::<Self>().ok().filter(|n| (low..=high).contains(n));
        n.ok_or_else(|| format!("a whole number from {low} to {high}"))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for u32 {
    fn parse(text: &str, range: (u64, u64)) -> Result<Self, String> {
        u64::parse(text, range).map(|n| Self::try_from(n).unwrap_or(Self::MAX))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn parse(text: &str, _: (u64, u64)) -> Result<Self, String> {
        if text.len() > 4096 {
            return Err("at most 4096 bytes".to_owned());
        }
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_can_be_listed_and_set() {
        let settings = AppSettings::default();
        let fields = serde_json::to_value(&settings).expect("plain data");
        let listed = settings.list();
        assert_eq!(listed.len(), fields.as_object().expect("an object").len());
        for shown in listed {
            let mut copy = AppSettings::default();
            copy.set(shown.name, &shown.default).expect(shown.name);
            assert_eq!(copy, settings, "{}", shown.name);
        }
    }

    #[test]
    fn bad_values_are_refused() {
        let mut settings = AppSettings::default();
        for (name, text) in [("live.msg_rate", "fast"), ("live.replay", "51"), ("webhook.auth", "yes"), ("nope", "1")] {
            assert!(settings.set(name, text).is_err(), "{name}={text}");
        }
        assert_eq!(settings, AppSettings::default());
    }

    #[test]
    fn webhook_switches() {
        let mut settings = AppSettings { webhook_events: "A.B, C.D".to_owned(), ..AppSettings::default() };
        assert!(!settings.webhook_on("A.B"), "no url");
        settings.webhook_url = "http://localhost".to_owned();
        assert!(settings.webhook_on("A.B") && settings.webhook_on("C.D") && !settings.webhook_on("E.F"));
    }

    #[test]
    fn rest_rates() {
        let settings = AppSettings { command_rates: "openim/sendmsg=7".to_owned(), ..AppSettings::default() };
        assert_eq!(settings.rest_rate("openim/sendmsg", Some(200)), 7);
        assert_eq!(settings.rest_rate("a/b", Some(1)), 1);
        assert_eq!(settings.rest_rate("a/b", None), 200);
    }
}
