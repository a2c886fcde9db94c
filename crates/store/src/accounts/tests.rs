use std::collections::BTreeSet;

use linnet_runtime::{Clock, Rng};

use super::*;
use crate::sim::{Counts, Faults, SimRows};

const APP: SdkAppId = SdkAppId(1_400_000_000);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn user(name: &str) -> UserId {
    UserId::trusted(name)
}

fn accounts(seed: u64, faults: Faults) -> (Accounts, SimRows) {
    let sim = SimRows::new(Rng::seeded(seed), Clock::simulated(NOW), faults);
    (Accounts::new(sim.store()), sim)
}

fn nick(text: &str) -> Vec<(String, ProfileValue)> {
    vec![("Tag_Profile_IM_Nick".to_owned(), ProfileValue::Text(text.to_owned()))]
}

#[tokio::test(start_paused = true)]
async fn importing_again_overwrites_only_what_is_given() {
    let (accounts, _) = accounts(1, Faults::none());
    let mut fields = nick("Ann");
    fields.push(("Tag_Profile_IM_Level".to_owned(), ProfileValue::Number(3)));
    assert!(matches!(accounts.import(APP, &user("ann"), &fields, NOW).await.unwrap(), Imported::Created(_)));
    let again = accounts.import(APP, &user("ann"), &nick("Anna"), NOW.plus_ms(1)).await.unwrap();
    let Imported::Existed(ann) = again else { panic!("{again:?}") };
    assert_eq!(ann.created, NOW);
    assert_eq!(ann.profile["Tag_Profile_IM_Nick"], ProfileValue::Text("Anna".to_owned()));
    assert_eq!(ann.profile["Tag_Profile_IM_Level"], ProfileValue::Number(3));
    assert_eq!(accounts.get(APP, &user("ann")).await.unwrap(), Some(ann.clone()));
    let same = accounts.import(APP, &user("ann"), &[], NOW).await.unwrap();
    assert_eq!(same, Imported::Existed(ann), "nothing given, nothing written");
    assert_eq!(accounts.get(SdkAppId(1), &user("ann")).await.unwrap(), None, "another tenant's");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_account_is_gone_until_it_is_imported_again() {
    let (accounts, _) = accounts(2, Faults::none());
    let ann = user("ann");
    accounts.import(APP, &ann, &nick("Ann"), NOW).await.unwrap();
    let kicked = accounts.update(APP, &ann, |account| account.kick_time_s = 77).await.unwrap().unwrap();
    assert_eq!(kicked.rev, 2);
    assert!(accounts.delete(APP, &ann, NOW).await.unwrap());
    assert!(!accounts.delete(APP, &ann, NOW).await.unwrap(), "once");
    assert_eq!(accounts.get(APP, &ann).await.unwrap(), None);
    assert_eq!(accounts.update(APP, &ann, |_| {}).await.unwrap(), None);
    assert!(accounts.get_with_deleted(APP, &ann).await.unwrap().unwrap().profile.is_empty());
    assert_eq!(accounts.count(APP).await.unwrap(), 0);
    let Imported::Created(ann) = accounts.import(APP, &ann, &[], NOW.plus_ms(9)).await.unwrap() else {
        panic!("it was deleted")
    };
    assert_eq!((ann.generation, ann.kick_time_s, ann.created), (2, 77, NOW.plus_ms(9)), "old sigs stay refused");
    assert_eq!(accounts.count(APP).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn pages_hold_every_account_once() {
    let (accounts, _) = accounts(3, Faults::none());
    let names: BTreeSet<String> = (0..100).map(|n| format!("u{n}")).collect();
    for name in &names {
        accounts.import(APP, &user(name), &[], NOW).await.unwrap();
    }
    for limit in [1, 7, 100, 1000] {
        let mut seen = BTreeSet::new();
        let mut at = None;
        loop {
            let (page, next) = accounts.page(APP, at.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            for user in page {
                assert!(seen.insert(user.to_string()), "{user} twice at limit {limit}");
            }
            at = next;
            if at.is_none() {
                break;
            }
        }
        assert_eq!(seen, names, "limit {limit}");
    }
    let many = accounts.get_many(APP, &[user("u5"), user("nobody"), user("u7")]).await.unwrap();
    let found: Vec<Option<UserId>> = many.into_iter().map(|account| account.map(|account| account.user)).collect();
    assert_eq!(found, [Some(user("u5")), None, Some(user("u7"))]);
}

/// Writers of different fields at the same time, over a store that misbehaves.
async fn contend(seed: u64) -> Counts {
    let (accounts, sim) = accounts(seed, Faults::none());
    accounts.import(APP, &user("ann"), &[], NOW).await.unwrap();
    sim.set_faults(Faults::rough());
    let writer = |n: u32| {
        let accounts = accounts.clone();
        async move {
            let tag = format!("t{n}");
            let set = |account: &mut Account| {
                account.profile.insert(tag.clone(), ProfileValue::Number(n));
            };
            accounts.update(APP, &user("ann"), set).await
        }
    };
    let told = futures::future::join_all((0..8).map(writer)).await;
    let counts = sim.counts();
    sim.set_faults(Faults::none());
    let ann = accounts.get(APP, &user("ann")).await.unwrap().unwrap();
    for (n, told) in told.into_iter().enumerate() {
        let there = ann.profile.contains_key(&format!("t{n}"));
        match told {
            Ok(_) => assert!(there, "seed {seed}: writer {n} was told yes"),
            Err(crate::Error::Unavailable { .. }) => assert!(!there, "seed {seed}: writer {n} was told no"),
            Err(_) => {}
        }
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn concurrent_changes_do_not_lose_each_other_over_a_failing_store() {
    let mut counts = Counts::default();
    for seed in 0..200 {
        counts.add(&contend(seed).await);
    }
    println!("{counts:?}");
    assert!(counts.unknown_applied > 0 && counts.late_landed > 0 && counts.minority_finished > 0, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn concurrent_imports_create_one_account() {
    for seed in 0..50 {
        let (accounts, _) = accounts(seed, Faults { latency: std::time::Duration::from_millis(4), ..Faults::none() });
        let ann = user("ann");
        let (fields_a, fields_b) = (nick("a"), nick("b"));
        let (a, b) =
            tokio::join!(accounts.import(APP, &ann, &fields_a, NOW), accounts.import(APP, &ann, &fields_b, NOW));
        let created = [a.unwrap(), b.unwrap()].iter().filter(|done| matches!(done, Imported::Created(_))).count();
        assert_eq!(created, 1, "seed {seed}");
    }
}
