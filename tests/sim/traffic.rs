//! Who writes to whom, who is removed and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linnet_client::proto::{self, frame};
use linnet_runtime::Rng;

use crate::chaos;
use crate::person::{Person, Told};
use crate::world::World;

const PEOPLE: usize = 9;

/// A group of the run.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) owner: usize,
    /// Members from the start.
    pub(crate) members: &'static [usize],
    /// Those who are removed now and then and come back.
    victims: &'static [usize],
}

impl Group {
    pub(crate) fn conv(&self) -> String {
        format!("GROUP:{}", self.id)
    }
}

/// Everything that goes on.
pub(crate) struct Traffic {
    pub(crate) people: Vec<Person>,
    pub(crate) pairs: Vec<(usize, usize)>,
    pub(crate) groups: Vec<Group>,
}

/// What the senders and managers saw.
pub(crate) struct Seen {
    /// In the order of each sender.
    pub(crate) sends: Vec<Vec<Told>>,
}

fn plan() -> Vec<Group> {
    let group = |id: &str, kind, owner, members, victims| Group { id: id.into(), kind, owner, members, victims };
    vec![
        group("small", "Public", 0, &[1, 2], &[2]),
        group("work", "Work", 3, &[4, 5, 6], &[6]),
        // Above the limit for delivery by name, always.
        group("large", "Public", 8, &[0, 1, 2, 3, 4, 5, 6], &[5, 6, 7]),
        // Crosses the limit and comes back.
        group("edge", "Public", 1, &[2, 3, 4, 5], &[5, 6, 7]),
    ]
}

impl Traffic {
    /// People sign in and make their groups before anything goes wrong.
    pub(crate) async fn prepare(world: &mut World) -> Self {
        let mut people = Vec::new();
        for n in 0..PEOPLE {
            people.push(Person::arrive(world, &format!("u{n}")).await);
        }
        let groups = plan();
        for group in &groups {
            let create = proto::GroupCreate {
                r#type: group.kind.into(),
                name: group.id.clone(),
                group_id: group.id.clone(),
                apply_join_option: if group.kind == "Public" { "FreeAccess".into() } else { String::new() },
                invite_join_option: "FreeAccess".into(),
                members: group.members.iter().map(|n| people[*n].name.clone()).collect(),
                ..proto::GroupCreate::default()
            };
            let made = people[group.owner].ask(frame::Body::GroupCreate(create)).await;
            assert!(matches!(made, Ok(frame::Body::GroupCreated(_))), "{made:?}");
        }
        Self { people, pairs: vec![(0, 1), (2, 3), (4, 0)], groups }
    }

    /// Everybody writes while the storm goes on, and once more after it.
    pub(crate) async fn run_under(&self, world: &mut World) -> Seen {
        let stop = Arc::<AtomicBool>::default();
        let (mut senders, mut managers) = (Vec::new(), Vec::new());
        let mut index = 0;
        let mut sender = |from: usize, conv: String| {
            index += 1;
            let sender = Sender {
                person: self.people[from].clone(),
                conv,
                index,
                rng: world.rng.fork(&format!("sender {index}")),
                stop: Arc::clone(&stop),
            };
            senders.push(tokio::spawn(sender.run()));
        };
        for (one, other) in &self.pairs {
            sender(*one, format!("C2C:{}", self.people[*other].name));
            sender(*other, format!("C2C:{}", self.people[*one].name));
        }
        for group in &self.groups {
            sender(group.owner, group.conv());
            for member in &group.members[group.members.len() - 2..] {
                sender(*member, group.conv());
            }
        }
        for group in &self.groups {
            let manager = Manager {
                owner: self.people[group.owner].clone(),
                people: self.people.clone(),
                group: group.clone(),
                rng: world.rng.fork(&format!("manager of {}", group.id)),
                stop: Arc::clone(&stop),
            };
            managers.push(tokio::spawn(manager.run()));
        }
        chaos::storm(world).await;
        stop.store(true, Ordering::Relaxed);
        let (mut sends, mut kicks, mut returns, mut mutes) = (Vec::new(), 0, 0, 0);
        for manager in managers {
            let did = manager.await.unwrap_or_else(|why| std::panic::resume_unwind(why.into_panic()));
            kicks += did.kicks;
            returns += did.returns;
            mutes += did.mutes;
        }
        for sender in senders {
            sends.push(sender.await.unwrap_or_else(|why| std::panic::resume_unwind(why.into_panic())));
        }
        world.struck.count("members removed", kicks);
        world.struck.count("members who came back", returns);
        world.struck.count("members muted", mutes);
        Seen { sends }
    }
}

struct Sender {
    person: Person,
    conv: String,
    index: u32,
    rng: Rng,
    stop: Arc<AtomicBool>,
}

impl Sender {
    /// One message after another, each until it is answered for good; one more after the storm.
    async fn run(self) -> Vec<Told> {
        let mut told = Vec::new();
        let mut last = false;
        for n in 1.. {
            let text = format!("{} to {}: {n}", self.person.name, self.conv);
            told.push(self.person.insist(&self.conv, (self.index << 16) + n, &text).await);
            if last {
                break;
            }
            last = self.stop.load(Ordering::Relaxed);
            if !last {
                tokio::time::sleep(Duration::from_millis(100 + self.rng.below(1_500))).await;
            }
        }
        told
    }
}

#[derive(Default)]
struct Did {
    kicks: u64,
    returns: u64,
    mutes: u64,
}

struct Manager {
    owner: Person,
    people: Vec<Person>,
    group: Group,
    rng: Rng,
    stop: Arc<AtomicBool>,
}

impl Manager {
    /// Removes somebody, lets him come back, silences another: until the storm is over.
    async fn run(self) -> Did {
        let mut did = Did::default();
        while !self.stop.load(Ordering::Relaxed) {
            self.pause(2_000).await;
            let victim = &self.people[self.group.victims[self.rng.below(self.group.victims.len() as u64) as usize]];
            match self.rng.below(4) {
                0 if self.group.kind == "Public" => did.mutes += u64::from(self.mute(victim).await),
                1 => did.returns += u64::from(self.bring(victim).await),
                _ => {
                    did.kicks += u64::from(self.kick(victim).await);
                    self.pause(2_500).await;
                    did.returns += u64::from(self.bring(victim).await);
                }
            }
        }
        did
    }

    async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(200 + self.rng.below(most_ms))).await;
    }

    async fn kick(&self, victim: &Person) -> bool {
        let ask = proto::GroupKick {
            group_id: self.group.id.clone(),
            users: vec![victim.name.clone()],
            ..proto::GroupKick::default()
        };
        self.owner.ask(frame::Body::GroupKick(ask)).await.is_ok()
    }

    async fn mute(&self, victim: &Person) -> bool {
        let ask = proto::GroupMute {
            group_id: self.group.id.clone(),
            users: vec![victim.name.clone()],
            mute_s: 1 + self.rng.below(3),
        };
        self.owner.ask(frame::Body::GroupMute(ask)).await.is_ok()
    }

    /// The owner brings him in, or he comes on his own.
    async fn bring(&self, victim: &Person) -> bool {
        if self.group.kind == "Public" && self.rng.chance(50) {
            let ask = proto::GroupJoin { group_id: self.group.id.clone(), ..proto::GroupJoin::default() };
            return victim.ask(frame::Body::GroupJoin(ask)).await.is_ok();
        }
        let ask = proto::GroupInvite { group_id: self.group.id.clone(), users: vec![victim.name.clone()] };
        self.owner.ask(frame::Body::GroupInvite(ask)).await.is_ok()
    }
}
