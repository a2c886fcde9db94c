//! What several commands need to know of accounts.

use std::collections::{BTreeMap, HashMap, HashSet};

use linnet_cluster::{RouteKey, Service};
use linnet_proto::account::{Account, LookupRequest};
use linnet_types::{NodeId, Refusal, UserId, code};

use crate::call::Call;

/// Accounts of one lookup.
const LOOKUP: usize = 500;

/// Ids in their order, each once.
pub(crate) fn distinct<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut seen = HashSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).map(str::to_owned).collect()
}

/// Ids that may be an account's, in their order, each once.
pub(crate) fn possible<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    distinct(ids.into_iter().filter(|id| UserId::parse(id).is_ok()))
}

/// The text that backends match on, where the documents give one for a code.
pub(crate) fn token(code: u32) -> Option<&'static str> {
    (code == code::ACCOUNT_UNKNOWN).then_some("Err_TLS_PT_Open_Login_Account_Not_Exist")
}

/// `users` in groups of one owner each, at most `most` to a group.
pub(crate) fn by_owner(call: &Call<'_>, users: &[String], most: usize) -> Result<Vec<Vec<String>>, Refusal> {
    split(call, Service::Account, users, most)
}

/// The same for another service that keeps users.
pub(crate) fn split(
    call: &Call<'_>,
    service: Service,
    users: &[String],
    most: usize,
) -> Result<Vec<Vec<String>>, Refusal> {
    let mut owners: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for user in users {
        let key = RouteKey::user(call.tenant(), &UserId::trusted(user.as_str()));
        let owner = call.world.cluster.owner_node(service, key).map_err(|refusal| call.family.own(refusal))?;
        owners.entry(owner).or_default().push(user.clone());
    }
    Ok(owners.into_values().flat_map(|users| users.chunks(most).map(<[String]>::to_vec).collect::<Vec<_>>()).collect())
}

/// What is known of each possible id of `users`, with the profile fields `tags`; impossible ids are left out.
pub(crate) async fn lookup(
    call: &Call<'_>,
    users: &[String],
    tags: &[String],
) -> Result<HashMap<String, Account>, Refusal> {
    let groups = by_owner(call, &possible(users.iter().map(String::as_str)), LOOKUP)?;
    let ask = |users| {
        let want_profile = !tags.is_empty();
        call.ask(LookupRequest { app: call.app_id(), users, tags: tags.to_vec(), want_profile })
    };
    let replies = futures::future::try_join_all(groups.into_iter().map(ask)).await?;
    let accounts = replies.into_iter().flat_map(|reply| reply.accounts);
    Ok(accounts.map(|account| (account.user.clone(), account)).collect())
}

/// Refuses with `missing` unless `user` has an account.
pub(crate) async fn must_exist(call: &Call<'_>, user: &str, missing: u32) -> Result<(), Refusal> {
    let known = existing(call, &[user.to_owned()]).await?;
    if known.is_empty() { Err(Refusal::new(missing, format!("{user} is not registered"))) } else { Ok(()) }
}

/// Refuses a pair of which one has no account, with the code of an unknown `From_Account` or `To_Account`.
pub(crate) async fn pair_must_exist(call: &Call<'_>, from: &str, to: &str) -> Result<(), Refusal> {
    let known = existing(call, &[from.to_owned(), to.to_owned()]).await?;
    for (user, missing) in [(from, code::FROM_ACCOUNT), (to, code::TO_ACCOUNT)] {
        if !known.contains(user) {
            return Err(Refusal::new(missing, format!("{user} is not registered")));
        }
    }
    Ok(())
}

/// Those of `users` that have an account.
pub(crate) async fn existing(call: &Call<'_>, users: &[String]) -> Result<HashSet<String>, Refusal> {
    let known = lookup(call, users, &[]).await?;
    Ok(known.into_values().filter(|account| account.exists).map(|account| account.user).collect())
}
