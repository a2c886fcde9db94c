//! Whatever happened: once faults end, everybody has the same view, and it is right.

use std::time::Duration;

use linnet_bus::FaultPlan;
use proptest::prelude::*;

use crate::world::{Process, World, sleep};

#[derive(Clone, Debug)]
enum Step {
    Kill(usize),
    /// Starts again when it is dead.
    Start(usize),
    Leave(usize),
    Down(usize),
    Up(usize),
    /// Percent of what it would hear.
    Lose(usize, u32),
    Wait(u32),
}

const NODES: usize = 5;
const NAMES: [&str; NODES] = ["a", "b", "c", "d", "e"];

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        2 => node.clone().prop_map(Step::Kill),
        3 => node.clone().prop_map(Step::Start),
        1 => node.clone().prop_map(Step::Leave),
        2 => node.clone().prop_map(Step::Down),
        2 => node.clone().prop_map(Step::Up),
        2 => (node, 0..100_u32).prop_map(|(node, percent)| Step::Lose(node, percent)),
        6 => (10..12_000_u32).prop_map(Step::Wait),
    ]
}

struct Slot {
    process: Option<Process>,
    life: u64,
    leaving: bool,
}

impl Slot {
    fn start(&mut self, world: &World, name: &str) {
        self.life += 1;
        self.leaving = false;
        self.process = Some(world.group(name, self.life));
    }
}

async fn take(world: &World, slots: &mut [Slot], step: &Step) {
    match step {
        Step::Kill(node) => {
            if let Some(process) = slots[*node].process.take() {
                process.kill().await;
            }
        }
        Step::Start(node) if slots[*node].process.is_none() => slots[*node].start(world, NAMES[*node]),
        Step::Leave(node) => {
            if let Some(process) = &slots[*node].process {
                process.beats.leave().await;
                slots[*node].leaving = true;
            }
        }
        Step::Wait(ms) => sleep(f64::from(*ms) / 1000.0).await,
        Step::Start(node) | Step::Down(node) | Step::Up(node) | Step::Lose(node, _) => {
            let Some(process) = &slots[*node].process else { return };
            match step {
                Step::Down(_) => process.faulty.down(),
                Step::Up(_) => process.faulty.up(),
                Step::Lose(_, percent) => {
                    let max_delay = Duration::from_millis(500);
                    process.faulty.set(FaultPlan {
                        drop_percent: *percent,
                        delay_percent: 10,
                        reorder_percent: 10,
                        max_delay,
                    });
                }
                _ => {}
            }
        }
    }
}

async fn run(seed: u64, steps: &[Step]) {
    let world = World::new(seed);
    let mut slots: Vec<_> = NAMES.iter().map(|_| Slot { process: None, life: 0, leaving: false }).collect();
    slots[0].start(&world, NAMES[0]);
    slots[1].start(&world, NAMES[1]);
    for step in steps {
        take(&world, &mut slots, step).await;
    }
    for process in slots.iter().filter_map(|slot| slot.process.as_ref()) {
        process.faulty.heal();
        process.faulty.up();
    }
    // A freeze, a death after it, and a youth.
    sleep(30.0 + 10.0 + 12.0).await;
    let live: Vec<_> = slots.iter().enumerate().filter(|(_, slot)| slot.process.is_some()).collect();
    let wanted: Vec<_> = live.iter().map(|(n, slot)| (NAMES[*n].to_owned(), slot.life)).collect();
    let stays = live.iter().filter(|(_, slot)| !slot.leaving).map(|(n, _)| NAMES[*n].to_owned()).collect::<Vec<_>>();
    let ring = if stays.is_empty() { wanted.iter().map(|(name, _)| name.clone()).collect() } else { stays };
    for (n, slot) in &live {
        let process = slot.process.as_ref().expect("live");
        let seen: Vec<_> = process.view().into_iter().map(|(name, node)| (name, node.incarnation)).collect();
        assert_eq!(seen, wanted, "who lives, as {} sees it", NAMES[*n]);
        assert_eq!(process.ring(), ring, "the ring, as {} sees it", NAMES[*n]);
        assert!(!*process.beats.superseded().borrow());
    }
    for (_, slot) in live {
        let first = slot.process.as_ref().expect("live");
        assert_eq!(first.value("frozen"), 0.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn views_agree_and_are_right_once_faults_end(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(seed, &steps));
    }
}
