//! Promises kept over a store that misbehaves.

use super::*;
use crate::sim::Counts;

/// What may be true of one account, given every answer so far.
#[derive(Clone, Copy, Debug, PartialEq)]
enum May {
    In,
    Out,
    Either,
}

/// Accounts they fight over.
const USERS: usize = 6;

/// Two holders who keep taking the group from each other over a store that misbehaves: what was acknowledged is there, what
/// was refused is not, and nobody but the last claimant is ever told yes.
async fn contend(seed: u64, kind: GroupType) -> (usize, Counts) {
    let sim = sim(seed);
    let groups = Groups::new(sim.store());
    let first = create(&groups, new_group(5, "g", kind, &["ann"])).await;
    sim.set_faults(Faults::rough());
    let dice = Rng::seeded(seed ^ 0x5eed);
    let mut holders = [Some(first), None];
    let mut last = Some(0);
    let mut may = [May::Out; USERS];
    // Changes that are in, and changes that may be.
    let (mut told, mut unsure) = ([0; USERS], [0; USERS]);
    for step in 0..60 {
        let me = usize::from(dice.chance(50));
        if holders[me].is_none() || dice.chance(10) {
            // Even a claim that failed may have taken the group from its holder.
            last = None;
            holders[me] = groups.claim(APP, ConvId(5)).await.ok().flatten();
            if holders[me].is_some() {
                last = Some(me);
            }
            continue;
        }
        let held = holders[me].as_mut().expect("just looked");
        let who: Vec<usize> = (0..USERS).filter(|_| dice.chance(30)).collect();
        let joins = dice.chance(50);
        let mut change = Change::at(NOW);
        for who in &who {
            let one = if joins { add(&format!("u{who}")) } else { kick(&format!("u{who}")) };
            change.users.extend(one.users);
            change.events.extend(one.events);
        }
        let wished = if joins { May::In } else { May::Out };
        let answer = groups.apply(held, change).await;
        let lost = matches!(answer, Err(Error::Stale { .. } | Error::Unknown { .. }));
        // In a community, what an account's own partition said is in its own batch.
        let unclear = answer.is_err() && (kind == GroupType::Community || matches!(answer, Err(Error::Unknown { .. })));
        if answer.is_ok() && !who.is_empty() {
            // A community's partition is taken over when the new holder first looks at it.
            let sure = kind == GroupType::Public && last.is_some_and(|last| last != me);
            assert!(!sure, "seed {seed} step {step}: a deposed holder was told yes");
        }
        for who in who {
            if answer.is_ok() {
                may[who] = wished;
                told[who] += 1;
            } else if unclear {
                may[who] = if may[who] == wished { wished } else { May::Either };
                unsure[who] += 1;
            }
        }
        if lost {
            holders[me] = None;
        }
    }
    let counts = sim.counts();
    sim.set_faults(Faults::none());
    let mut held = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
    groups.resume(&mut held).await.unwrap();
    let members = names(&groups, &held).await;
    assert_eq!(members.len(), held.record().member_count as usize, "seed {seed}: the count is exact");
    let events = groups.outbox(&held, 0, 1000).await.unwrap();
    for (who, may) in may.into_iter().enumerate() {
        let name = format!("u{who}");
        let stored = events.iter().filter(|event| event.body == name).count();
        let possible = told[who]..=told[who] + unsure[who];
        assert!(possible.contains(&stored), "seed {seed}: {stored} events of {name}, {possible:?} changes");
        let is = if members.contains(&name) { May::In } else { May::Out };
        assert!(may == May::Either || may == is, "seed {seed}: {name} is {is:?}, was told {may:?}");
        assert_eq!(joined(&groups, &name).await.len(), usize::from(is == May::In), "seed {seed}: {name} derived");
    }
    (told.iter().sum(), counts)
}

#[tokio::test(start_paused = true)]
async fn holders_who_depose_each_other_over_a_failing_store_keep_every_promise() {
    let mut counts = Counts::default();
    let mut done = 0;
    for seed in 0..150 {
        for kind in [GroupType::Public, GroupType::Community] {
            let (told, struck) = contend(seed, kind).await;
            counts.add(&struck);
            done += told;
        }
    }
    println!("{done} changes done, {counts:?}");
    assert!(done > 2_000, "only {done} changes were done");
    assert_eq!(counts.never_struck(), Vec::<&str>::new(), "every fault struck");
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_failed_left_everything_or_nothing() {
    let (mut whole, mut nothing) = (0, 0);
    for seed in 0..300 {
        let sim = sim(seed);
        let groups = Groups::new(sim.store());
        sim.set_faults(Faults { unavailable_per_mille: 30, ..Faults::rough() });
        let kind = if seed % 2 == 0 { GroupType::Public } else { GroupType::Community };
        let created = groups.create(new_group(5, "g", kind, &["ann", "bob", "cat"])).await;
        sim.set_faults(Faults::none());
        let mut found = None;
        for _ in 0..20 {
            // What was still under way lands meanwhile.
            found = groups.find(APP, &group("g")).await.unwrap();
        }
        match &created {
            Ok(Created::New(_)) => assert!(found.is_some(), "seed {seed}"),
            Ok(Created::Taken(name)) => panic!("seed {seed}: taken by {name:?}"),
            Err(Error::Unavailable { .. }) => assert_eq!(found, None, "seed {seed}"),
            Err(_) => {}
        }
        drop(created);
        // What a node does that starts after a crash.
        let mut open = Vec::new();
        for slot in 0..OPEN_SLOTS {
            open.extend(groups.open(slot).await.unwrap());
        }
        for open in open {
            if let Some(mut held) = groups.claim(open.app, open.conv).await.unwrap() {
                groups.resume(&mut held).await.unwrap();
                assert_eq!(held.record().member_count, 3, "seed {seed}");
                assert_eq!(groups.outbox(&held, 0, 10).await.unwrap().len(), 1, "seed {seed}");
            }
        }
        let expected = usize::from(found.is_some());
        for name in ["ann", "bob", "cat"] {
            assert_eq!(joined(&groups, name).await.len(), expected, "seed {seed}: {name}");
        }
        assert_eq!(groups.count_of_app(APP, None).await.unwrap(), expected as u64, "seed {seed}");
        whole += expected;
        nothing += 1 - expected;
    }
    assert!(whole > 30 && nothing > 30, "{whole} created, {nothing} not");
}

#[tokio::test(start_paused = true)]
async fn a_dismissal_is_finished_by_whoever_comes_next() {
    for seed in 0..150 {
        let sim = sim(seed);
        let groups = Groups::new(sim.store());
        let kind = if seed % 2 == 0 { GroupType::Public } else { GroupType::Community };
        let mut held = create(&groups, new_group(5, "g", kind, &["ann", "bob", "cat"])).await;
        sim.set_faults(Faults::rough());
        let event = Event { about: None, event: "destroyed".to_owned(), body: Bytes::new() };
        let answer = groups.destroy(&mut held, NOW, vec![event]).await;
        let _ = groups.resume(&mut held).await;
        sim.set_faults(Faults::none());
        drop(held);
        let mut next = groups.claim(APP, ConvId(5)).await.unwrap().expect("alive or dismissed");
        groups.resume(&mut next).await.unwrap();
        let alive = next.record().destroyed.is_none();
        assert!(!(alive && answer.is_ok()), "seed {seed}: a dismissed group lives");
        assert_eq!(groups.find(APP, &group("g")).await.unwrap().is_some(), alive, "seed {seed}");
        assert_eq!(groups.count_of_app(APP, None).await.unwrap(), u64::from(alive), "seed {seed}");
        for name in ["ann", "bob", "cat"] {
            assert_eq!(joined(&groups, name).await.len(), usize::from(alive), "seed {seed}: {name}");
        }
        assert_eq!(next.record().member_count, if alive { 3 } else { 0 }, "seed {seed}");
        let told = groups.outbox(&next, 0, 10).await.unwrap().len();
        assert_eq!(told, if alive { 1 } else { 2 }, "seed {seed}: the last event is told");
    }
}
