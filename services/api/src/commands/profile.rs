//! `profile`: who a person says he is (`spec/rest-accounts.md` §3). Values are checked by the account service, which
//! clients use too; here only the shape of a request.

pub(crate) mod portrait_get;
pub(crate) mod portrait_set;
