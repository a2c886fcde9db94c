//! `spec/rest-groups.md` §3.1: each group has an outcome of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt, TryStreamExt};
use linnet_proto::group::{Group, InfoRequest, Member, MembersRequest};
use linnet_types::{GroupId, GroupType, Refusal, Role, code};
use serde::Serialize;
use serde_json::{Map, Value};

use super::BAD;
use super::show::{self, Filters};
use crate::call::Call;
use crate::reply::{MAX_BYTES, Reply};

const MOST: usize = 50;
const AT_ONCE: usize = 8;
/// Members of one group that are shown; the rest is paged by `get_group_member_info`.
const MEMBERS: u32 = 6_000;
/// The least a member takes in a reply: over this many no reply can be within its limit.
const MEMBER_BYTES: usize = 50;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    group_info: Vec<Map<String, Value>>,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let ids = call.body.at("GroupIdList").strings(BAD, BAD)?.need_within(MOST, BAD, BAD)?;
    let filters = Filters::of_groups(call.body.at("ResponseFilter"))?;
    let shown = AtomicUsize::new(0);
    let one = |id: String| one(call, id, &filters, &shown);
    let group_info = futures::stream::iter(ids).map(one).buffered(AT_ONCE).try_collect().await?;
    Reply::of(&Fields { group_info })
}

async fn one(
    call: &Call<'_>,
    id: String,
    filters: &Filters,
    shown: &AtomicUsize,
) -> Result<Map<String, Value>, Refusal> {
    let mut out = Map::new();
    let (code, info) = match read(call, &id, filters).await {
        Ok((fields, members)) => {
            if shown.fetch_add(members.len(), Ordering::Relaxed) + members.len() > MAX_BYTES / MEMBER_BYTES {
                return Err(Refusal::new(code::GROUP_REPLY_LARGE, "the reply would be over 1 MB"));
            }
            out = fields;
            if !filters.member.is_empty() {
                let members = show::members(&members, filters).into_iter().map(Value::Object);
                out.insert("MemberList".to_owned(), members.collect());
            }
            (code::OK, String::new())
        }
        Err(refusal) => (refusal.code, refusal.info),
    };
    out.insert("GroupId".to_owned(), id.into());
    out.insert("ErrorCode".to_owned(), code.into());
    out.insert("ErrorInfo".to_owned(), info.into());
    Ok(out)
}

async fn read(call: &Call<'_>, id: &str, filters: &Filters) -> Result<(Map<String, Value>, Vec<Member>), Refusal> {
    GroupId::parse(id)?;
    let (app, group_id) = (call.app_id(), id.to_owned());
    let info = call.ask(InfoRequest { app, group_id: group_id.clone(), self_: String::new() }).await?;
    let group = info.group.ok_or_else(|| Refusal::new(code::GROUP_UNKNOWN, "no such group"))?;
    let live = GroupType::parse(&group.r#type).is_some_and(GroupType::is_live);
    let members = match (filters.member.is_empty(), live) {
        (true, _) => Vec::new(),
        (false, true) => staff(&group),
        (false, false) => {
            let request = MembersRequest { app, group_id, limit: MEMBERS, origin: call.origin(), ..Default::default() };
            call.ask(request).await?.members
        }
    };
    Ok((show::group(app, &group, filters), members))
}

/// Of a live room only who runs it is stored.
fn staff(group: &Group) -> Vec<Member> {
    let member =
        |user: &String, role: Role| Member { user: user.clone(), role: role.wire().to_owned(), ..Member::default() };
    let owner = (!group.owner.is_empty()).then(|| member(&group.owner, Role::Owner));
    owner.into_iter().chain(group.admins.iter().map(|admin| member(admin, Role::Admin))).collect()
}
