use super::*;

const PANICS: &str = "linnet_task_panics_total{task=\"bad\"}";

fn tasks() -> (Tasks, Metrics) {
    let metrics = Metrics::new();
    (Tasks::new(&metrics), metrics)
}

#[tokio::test]
async fn panic_is_counted_and_ends_only_its_task() {
    let (tasks, metrics) = tasks();
    let bad = tasks.spawn("bad", async { panic!("boom") });
    let good = tasks.spawn("good", async { 7 });
    assert_eq!(bad.await.expect("caught"), None::<()>);
    assert_eq!(good.await.expect("joined"), Some(7));
    assert_eq!(metrics.value(PANICS), Some(1.0));
    assert_eq!(tasks.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn drain_lets_accepted_work_finish() {
    let (tasks, _) = tasks();
    let draining = tasks.draining();
    let worker = tasks.spawn("worker", async move {
        draining.cancelled().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        "finished"
    });
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
    assert_eq!(worker.await.expect("joined"), Some("finished"));
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_what_does_not_stop() {
    let (tasks, metrics) = tasks();
    let stubborn = tasks.spawn("stubborn", std::future::pending::<()>());
    assert!(!tasks.shutdown(Duration::from_secs(5)).await);
    assert_eq!(stubborn.await.expect("joined"), None);
    assert_eq!(metrics.value("linnet_task_running{task=\"stubborn\"}"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn parent_waits_for_children_and_child_ends_alone() {
    let (tasks, _) = tasks();
    let (one, two) = (tasks.child("one"), tasks.child("two"));
    let draining = two.draining();
    one.spawn("a", std::future::pending::<()>());
    let kept = two.spawn("b", async move { draining.cancelled().await });
    assert_eq!(tasks.count(), 2);
    assert!(!one.shutdown(Duration::from_millis(1)).await);
    assert_eq!((tasks.count(), two.count()), (1, 1));
    assert!(!two.draining().is_cancelled());
    assert!(tasks.shutdown(Duration::from_secs(1)).await);
    assert_eq!(kept.await.expect("joined"), Some(()));
}

#[tokio::test]
async fn spawn_after_shutdown_does_not_run() {
    let (tasks, _) = tasks();
    tasks.shutdown(Duration::from_millis(1)).await;
    assert_eq!(tasks.spawn("late", async { 1 }).await.expect("joined"), None);
}

#[tokio::test]
async fn blocking_returns_value_or_panic() {
    let (tasks, metrics) = tasks();
    assert_eq!(tasks.blocking("ok", || 3).await.expect("ran"), 3);
    let outcome = tasks.blocking("bad", || -> u32 { panic!("boom") }).await;
    assert!(matches!(outcome, Err(Error::Panicked { name: "bad" })));
    assert_eq!(metrics.value(PANICS), Some(1.0));
}

#[tokio::test]
async fn shutdown_waits_for_threads() {
    let (tasks, _) = tasks();
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let thread = tasks.thread("loop", move || {
        let _ = stopped.recv();
    });
    let draining = tasks.draining();
    tasks.spawn("stopper", async move {
        draining.cancelled().await;
        drop(stop);
    });
    assert!(tasks.shutdown(Duration::from_secs(10)).await);
    thread.join().expect("ended");
}
