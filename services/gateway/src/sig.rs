//! The app's keys held against a UserSig.

use linnet_admission::apps::App;
use linnet_types::{Refusal, UnixMillis, UserId};
use linnet_usersig::{Expected, Keys, check};

/// The second the sig was issued in and the time it ends, if it is good now.
///
/// # Errors
/// As `linnet_usersig::check`.
pub(crate) fn verify(app: &App, user: &UserId, sig: &str, now: UnixMillis) -> Result<(u64, UnixMillis), Refusal> {
    let previous = app.previous.as_ref().filter(|(_, until)| now < *until).map(|(key, _)| key.as_str());
    let keys = Keys { current: Some(app.key.as_str()), previous };
    let checked = check(sig, &Expected { app: app.id, identifier: user.as_str(), keys, now })?;
    Ok((checked.claims.time_s, UnixMillis::from_secs(checked.claims.deadline_s())))
}
