//! Who is there, and in which conversations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::api::Api;
use super::record::Conv;

/// Users with a client.
pub const PEOPLE: usize = 24;
/// Members of the community that are signed in.
const IN_COMMUNITY: usize = 10;
/// Users in the live room.
const IN_ROOM: usize = 12;
/// Users with a second device that only writes down what is pushed to it.
const WATCHED: usize = 6;
/// Accounts of one import, members of one addition, and such calls at a time.
const BATCH: usize = 100;
const ADDED: usize = 100;
const AT_ONCE: usize = 4;
/// For one addition.
const SEEDED: Duration = Duration::from_secs(120);

/// The users and conversations of a lane.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Users with a client.
    pub people: Vec<String>,
    /// Pairs, small groups and the community, with who of `people` is in it.
    pub stored: BTreeMap<Conv, BTreeSet<usize>>,
    /// The live room and who is in it.
    pub room: (Conv, BTreeSet<usize>),
    /// The community.
    pub community: Conv,
    /// Who has a second device.
    pub watched: Vec<usize>,
}

impl Crowd {
    /// Names everybody; `tag` keeps lanes on one store apart.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        let people: Vec<String> = (0..PEOPLE).map(|n| format!("{tag}p{n:02}")).collect();
        let mut stored = BTreeMap::new();
        for n in (0..PEOPLE).step_by(2) {
            stored.insert(Conv::pair(&people[n], &people[n + 1]), BTreeSet::from([n, n + 1]));
        }
        // Small groups of 6, 8, 10 and 9 that overlap, so that most users are in two.
        for (n, (first, size)) in [(0, 6), (4, 8), (10, 10), (15, 9)].into_iter().enumerate() {
            stored.insert(Conv::Group(format!("{tag}g{n}")), (first..first + size).collect());
        }
        let community = Conv::Group(format!("@TGS#_{tag}all"));
        stored.insert(community.clone(), (0..PEOPLE).step_by(2).take(IN_COMMUNITY).collect());
        let room = (Conv::Group(format!("{tag}live")), (1..=IN_ROOM).collect());
        Self { people, stored, room, community, watched: (0..WATCHED).map(|n| n * 4 + 1).collect() }
    }

    /// Names of those in a conversation.
    #[must_use]
    pub fn names(&self, members: &BTreeSet<usize>) -> BTreeSet<String> {
        members.iter().map(|n| self.people[*n].clone()).collect()
    }

    /// Registers everybody and makes the groups; the community gets `size` members in all.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn seed(&self, api: &Api, size: usize) -> Result<()> {
        import(api, &self.people).await?;
        for (conv, members) in &self.stored {
            let Conv::Group(id) = conv else { continue };
            let kind = if *conv == self.community { "Community" } else { "Public" };
            self.make(api, kind, id, members).await?;
        }
        let (Conv::Group(room), viewers) = &self.room else { unreachable!("a room is a group") };
        self.make(api, "AVChatRoom", room, viewers).await?;
        let Conv::Group(community) = &self.community else { unreachable!("a community is a group") };
        let rest = size.saturating_sub(self.stored[&self.community].len());
        let silent: Vec<String> = (0..rest).map(|n| format!("{}m{n:05}", self.people[0])).collect();
        let imports = silent.chunks(BATCH).map(|batch| import(api, batch));
        stream::iter(imports).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let added = silent.chunks(ADDED).map(|batch| async move {
            let members: Vec<_> = batch.iter().map(|user| json!({ "Member_Account": user })).collect();
            let body = json!({ "GroupId": community, "Silence": 1, "MemberList": members });
            // A batch may take longer than a node lets a call take; those of it who are in are in.
            api.ok_within("group_open_http_svc/add_group_member", body, SEEDED).await.map(drop)
        });
        stream::iter(added).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn make(&self, api: &Api, kind: &str, id: &str, members: &BTreeSet<usize>) -> Result<()> {
        let names: Vec<&String> = members.iter().map(|n| &self.people[*n]).collect();
        let others: Vec<_> = names[1..].iter().map(|user| json!({ "Member_Account": user })).collect();
        let mut body = json!({ "Type": kind, "Name": id, "GroupId": id, "Owner_Account": names[0] });
        // Who watches a live room enters it himself.
        if kind != "AVChatRoom" {
            body["MemberList"] = others.into();
        }
        api.ok("group_open_http_svc/create_group", body).await?;
        Ok(())
    }
}

async fn import(api: &Api, users: &[String]) -> Result<()> {
    api.ok("im_open_login_svc/multiaccount_import", json!({ "Accounts": users })).await?;
    Ok(())
}
