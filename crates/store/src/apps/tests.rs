use linnet_runtime::{Clock, Rng};

use super::*;
use crate::sim::{Faults, SimRows};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn apps() -> Apps {
    Apps::new(SimRows::new(Rng::seeded(1), Clock::simulated(NOW), Faults::none()).store())
}

fn app(id: u32) -> App {
    App {
        app: SdkAppId(id),
        name: "demo".to_owned(),
        key: AppKey::new("s3cret"),
        previous: None,
        admins: vec![UserId::trusted("administrator")],
        settings: AppSettings::default(),
        created: NOW,
        enabled: true,
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_is_created_once_changed_listed_and_deleted() {
    let apps = apps();
    assert!(apps.create(&app(7)).await.unwrap());
    assert!(!apps.create(&App { name: "other".to_owned(), ..app(7) }).await.unwrap(), "the id is taken");
    assert!(apps.create(&app(8)).await.unwrap());
    let rotated = apps
        .update(SdkAppId(7), |app| {
            app.previous = Some((std::mem::replace(&mut app.key, AppKey::new("new")), NOW.plus_ms(5)));
            app.settings.live_rate = 9;
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rotated.previous, Some((AppKey::new("s3cret"), NOW.plus_ms(5))));
    assert_eq!(apps.get(SdkAppId(7)).await.unwrap(), Some(rotated.clone()));
    assert_eq!(apps.list().await.unwrap(), [rotated, app(8)]);
    assert!(apps.delete(SdkAppId(7), NOW).await.unwrap());
    assert!(!apps.delete(SdkAppId(7), NOW).await.unwrap());
    assert_eq!(apps.get(SdkAppId(7)).await.unwrap(), None);
    assert_eq!(apps.update(SdkAppId(7), |_| {}).await.unwrap(), None);
    assert_eq!(apps.list().await.unwrap(), [app(8)]);
    assert!(!apps.create(&app(7)).await.unwrap(), "the id of a deleted app is given out again");
    assert_eq!(apps.get(SdkAppId(7)).await.unwrap(), None);
}

#[test]
fn only_settings_that_differ_are_stored() {
    assert_eq!(differing(&AppSettings::default()), "{}");
    let settings = AppSettings { live_rate: 9, ..AppSettings::default() };
    assert_eq!(differing(&settings), r#"{"live.msg_rate":9}"#);
}

#[test]
fn keys_are_in_no_debug_output_and_no_description() {
    let mut app = App { previous: Some((AppKey::new("0ld"), NOW)), ..app(7) };
    app.settings.webhook_token = "t0ken".to_owned();
    let row = record::encode(&to_row(&app));
    let described = describe(APP, &partition(app.app), &[0], &row).unwrap().to_string();
    for text in [format!("{:?} {:?}", app.key, app.previous), described] {
        assert!(["s3cret", "0ld", "t0ken"].iter().all(|secret| !text.contains(secret)), "{text}");
    }
}
