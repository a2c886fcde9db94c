use linnet_runtime::{Clock, Rng};

use super::*;
use crate::sim::{Faults, SimRows};

const APP: SdkAppId = SdkAppId(1_400_000_000);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn push() -> Push {
    Push::new(SimRows::new(Rng::seeded(1), Clock::simulated(NOW), Faults::none()).store())
}

fn device(instance: &str, token: &str, at: u64) -> Device {
    Device {
        token: token.into(),
        instance: instance.into(),
        platform: "Android".into(),
        vendor: "fcm".into(),
        business_id: "7".into(),
        language: "en".into(),
        updated: NOW.plus_ms(at),
    }
}

async fn tokens(push: &Push, user: &UserId) -> Vec<String> {
    push.away(APP, user).await.unwrap().devices.into_iter().map(|device| device.token).collect()
}

#[tokio::test(start_paused = true)]
async fn a_device_has_one_token_and_a_token_one_user() {
    let push = push();
    let [ann, bob] = ["ann", "bob"].map(UserId::trusted);
    push.set_device(APP, &ann, &device("phone", "t1", 0)).await.unwrap();
    push.set_device(APP, &ann, &device("tablet", "t2", 1)).await.unwrap();
    assert_eq!(push.set_device(APP, &ann, &device("phone", "t3", 2)).await.unwrap(), None);
    assert_eq!(tokens(&push, &ann).await, ["t2", "t3"], "the instance's old token is gone");
    let before = push.set_device(APP, &bob, &device("phone", "t3", 3)).await.unwrap();
    assert_eq!(before.as_ref(), Some(&ann));
    assert_eq!((tokens(&push, &ann).await, tokens(&push, &bob).await), (vec!["t2".into()], vec!["t3".to_owned()]));
    assert_eq!(push.remove_devices(APP, &ann, |device| device.instance == "phone").await.unwrap(), 0);
    assert_eq!(push.remove_devices(APP, &ann, |_| true).await.unwrap(), 1);
    assert_eq!(tokens(&push, &ann).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_oldest_device_makes_room() {
    let push = push();
    let ann = UserId::trusted("ann");
    for n in 0..DEVICES as u64 + 2 {
        push.set_device(APP, &ann, &device(&format!("i{n}"), &format!("t{n:02}"), n)).await.unwrap();
    }
    let left = tokens(&push, &ann).await;
    assert_eq!((left.len(), left[0].as_str()), (DEVICES, "t02"));
}

#[tokio::test(start_paused = true)]
async fn the_number_counts_each_message_once_and_starts_anew_when_told() {
    let push = push();
    let ann = UserId::trusted("ann");
    push.set_badge(APP, &ann, 2).await.unwrap();
    let count = async |conv: &str, add, to| {
        let away = push.away(APP, &ann).await.unwrap();
        push.count_badge(APP, &ann, &away, conv, (add, to)).await.unwrap()
    };
    assert_eq!(count("C2C:bob", 1, 5).await, 3);
    assert_eq!(count("C2C:bob", 1, 5).await, 3, "a repeat");
    assert_eq!(count("GROUP:g", 12, 40).await, 15);
    assert_eq!(count("C2C:bob", 2, 7).await, 17);
    push.set_badge(APP, &ann, 0).await.unwrap();
    assert_eq!(push.away(APP, &ann).await.unwrap().badge(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_exceptions_are_kept() {
    let push = push();
    let ann = UserId::trusted("ann");
    let set = [("C2C:bob".to_owned(), Some("Discard".to_owned())), ("C2C:cat".to_owned(), Some("x".to_owned()))];
    push.set_options(APP, &ann, &set).await.unwrap();
    assert_eq!(push.option(APP, &ann, "C2C:bob").await.unwrap().as_deref(), Some("Discard"));
    let after = push.options(APP, &ann, Some("C2C:bob"), 10).await.unwrap();
    assert_eq!(after, [Receive { conv: "C2C:cat".into(), option: "x".into() }]);
    push.set_options(APP, &ann, &[("C2C:bob".to_owned(), None)]).await.unwrap();
    assert_eq!(push.options(APP, &ann, None, 10).await.unwrap().len(), 1);
    let quiet = Quiet {
        option: "AcceptNotNotify".into(),
        start_s: 3_600,
        duration_s: 60,
        repeated: true,
        utc_offset_s: -3_600,
        set: NOW,
    };
    push.set_quiet(APP, &ann, Some(&quiet)).await.unwrap();
    assert_eq!(push.away(APP, &ann).await.unwrap().quiet, Some(quiet));
    push.clear(APP, &ann).await.unwrap();
    assert_eq!(push.away(APP, &ann).await.unwrap(), Away::default());
    assert_eq!(push.options(APP, &ann, None, 10).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn rows_can_be_shown_and_tokens_are_cut() {
    let push = push();
    let ann = UserId::trusted("ann");
    push.set_device(APP, &ann, &device("phone", "a-very-long-token", 0)).await.unwrap();
    push.set_planned(APP, ConvId(9), 40).await.unwrap();
    assert_eq!(push.planned(APP, ConvId(9)).await.unwrap(), 40);
    for table in tables() {
        let found = crate::inspect::inspect(&push.store, table.name, &[], 10).await.unwrap().expect("a table");
        assert!(!found.is_empty(), "{table:?}");
        assert!(!format!("{found:?}").contains("long-token"), "{found:?}");
    }
}
