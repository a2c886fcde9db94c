//! `spec/rest-accounts.md` §2.1.

use linnet_proto::account::{ImportAccount, ImportRequest};
use linnet_types::{Refusal, code};

use super::nick_or_face;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let user = body.any(&["UserID", "Identifier"]).user(code::ACCOUNT_TYPE, code::ACCOUNT_BAD_PARAM)?;
    let account = ImportAccount {
        user: user.need(code::ACCOUNT_BAD_PARAM)?,
        nick: nick_or_face(body.at("Nick"))?,
        face_url: nick_or_face(body.at("FaceUrl"))?,
    };
    let reply = call.ask(ImportRequest { app: call.app_id(), accounts: vec![account] }).await?;
    match (reply.failed.first(), reply.codes.first()) {
        (None, None) => Ok(Reply::empty()),
        (_, code) => {
            let code = code.copied().unwrap_or(code::ACCOUNT_INTERNAL);
            Err(Refusal::new(code, "the account was not imported"))
        }
    }
}
