//! `spec/rest-accounts.md` §2.2, both shapes: `AccountList` with profiles, `Accounts` with ids alone.

use std::collections::HashMap;

use linnet_proto::account::{ImportAccount, ImportRequest};
use linnet_types::{Refusal, code};
use serde::Serialize;

use super::nick_or_face;
use crate::call::Call;
use crate::commands::accounts;
use crate::json::Object;
use crate::reply::Reply;

const MOST: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fail_accounts: Vec<String>,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let asked = parse(&call.body)?;
    let ids = accounts::distinct(asked.iter().map(|account| account.user.as_str()));
    // Of an account named twice the last one counts.
    let mut accounts: HashMap<String, ImportAccount> = asked.into_iter().map(|a| (a.user.clone(), a)).collect();
    let mut failed: HashMap<String, u32> = HashMap::new();
    for owned in accounts::by_owner(call, &ids, MOST)? {
        let accounts = owned.iter().filter_map(|id| accounts.remove(id)).collect();
        let reply = call.ask(ImportRequest { app: call.app_id(), accounts }).await?;
        let codes = reply.codes.into_iter().chain(std::iter::repeat(code::ACCOUNT_INTERNAL));
        failed.extend(reply.failed.into_iter().zip(codes));
    }
    let code = ids.first().and_then(|id| failed.get(id)).copied().unwrap_or_default();
    let all_alike = failed.len() == ids.len() && failed.values().all(|other| *other == code);
    if all_alike && code != code::ACCOUNT_BAD_PARAM {
        return Err(Refusal::new(code, "no account was imported"));
    }
    Reply::of(&Fields { fail_accounts: ids.into_iter().filter(|id| failed.contains_key(id)).collect() })
}

fn parse(body: &Object<'_>) -> Result<Vec<ImportAccount>, Refusal> {
    let bad = code::ACCOUNT_BAD_PARAM;
    let list = body.at("AccountList");
    if !list.is_there() {
        let ids = body.at("Accounts").strings(bad, code::ACCOUNT_TYPE)?.need_within(MOST, bad, bad)?;
        return Ok(ids.into_iter().map(|user| ImportAccount { user, nick: None, face_url: None }).collect());
    }
    let account = |item: Object<'_>| {
        Ok(ImportAccount {
            user: item.at("UserID").string(code::ACCOUNT_TYPE)?.need(bad)?,
            nick: nick_or_face(item.at("Nick"))?,
            face_url: nick_or_face(item.at("FaceUrl"))?,
        })
    };
    list.objects(bad)?.need_within(MOST, bad, bad)?.into_iter().map(account).collect()
}
