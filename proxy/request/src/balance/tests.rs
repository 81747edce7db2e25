//! The choice, with loads that are set by hand.

use super::*;

struct Fake {
    load: f64,
    backing_off: bool,
    terminating: bool,
}

impl Loaded for Fake {
    fn load(&self, _: Instant) -> f64 {
        self.load
    }
    fn is_backing_off(&self, _: Instant) -> bool {
        self.backing_off
    }
    fn is_terminating(&self) -> bool {
        self.terminating
    }
}

fn fakes(loads: &[f64]) -> Vec<Arc<Fake>> {
    loads.iter().map(|load| Arc::new(Fake { load: *load, backing_off: false, terminating: false })).collect()
}

fn share(endpoints: &[Arc<Fake>], tried: &[*const Fake]) -> Vec<usize> {
    let mut taken = vec![0; endpoints.len()];
    for _ in 0..10_000 {
        if let Some(chosen) = choose(endpoints, tried, Instant::now()) {
            taken[endpoints.iter().position(|e| Arc::ptr_eq(e, chosen)).unwrap()] += 1;
        }
    }
    taken
}

#[test]
fn the_heaviest_of_three_is_never_taken_and_equals_share_alike() {
    let taken = share(&fakes(&[1.0, 2.0, 9.0]), &[]);
    assert_eq!(taken[2], 0);
    assert!(taken[0] > taken[1]);
    let taken = share(&fakes(&[1.0; 4]), &[]);
    assert!(taken.iter().all(|n| (2000..3000).contains(n)), "{taken:?}");
    let taken = share(&fakes(&[1.0; 2]), &[]);
    assert!(taken.iter().all(|n| (4500..5500).contains(n)), "{taken:?}");
}

#[test]
fn what_was_tried_backs_off_or_terminates_is_taken_only_when_nothing_else_is_left() {
    let mut endpoints = fakes(&[1.0, 1.0, 1.0, 1.0]);
    endpoints[1] = Arc::new(Fake { load: 0.1, backing_off: true, terminating: false });
    endpoints[2] = Arc::new(Fake { load: 0.1, backing_off: false, terminating: true });
    let tried = Arc::as_ptr(&endpoints[0]);
    assert_eq!(share(&endpoints, &[tried]), [0, 0, 0, 10_000]);
    let tried = [tried, Arc::as_ptr(&endpoints[3])];
    assert_eq!(share(&endpoints, &tried), [0, 0, 10_000, 0]);
    let tried = [tried[0], tried[1], Arc::as_ptr(&endpoints[2])];
    assert_eq!(share(&endpoints, &tried), [0, 10_000, 0, 0]);
    let all: Vec<_> = endpoints.iter().map(Arc::as_ptr).collect();
    assert!(choose(&endpoints, &all, Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_peak_counts_at_once_and_is_forgotten_slowly() {
    let load = Load::new();
    load.answered(Duration::from_millis(1), Instant::now());
    load.answered(Duration::from_millis(500), Instant::now());
    assert!(load.value(Instant::now()) >= 0.5);
    load.answered(Duration::from_millis(1), Instant::now());
    assert!(load.value(Instant::now()) > 0.4, "one fast answer forgives nothing");
    tokio::time::advance(limits::EWMA_DECAY * 5).await;
    assert!(load.value(Instant::now()) < 0.01);
}

#[tokio::test(start_paused = true)]
async fn failed_connects_back_off_longer_each_time_until_one_succeeds() {
    let load = Load::new();
    for pause in [1, 2, 4] {
        for _ in 0..9 {
            load.connect_failed(Instant::now());
        }
        tokio::time::advance(limits::CONNECT_BACKOFF_MIN * pause - Duration::from_millis(1)).await;
        assert!(load.backs_off(Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!load.backs_off(Instant::now()));
    }
    load.connect_failed(Instant::now());
    load.connected();
    assert!(!load.backs_off(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_nobody_grows_heavier_and_stays_so_when_it_is_given_up() {
    let (hung, well) = (Load::new(), Load::new());
    for _ in 0..20 {
        hung.asked(Instant::now());
        well.asked(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        well.answered(Duration::from_millis(900), Instant::now());
        hung.given_up(Duration::from_secs(1), Instant::now());
        assert!(hung.value(Instant::now()) > well.value(Instant::now()));
    }
    hung.asked(Instant::now());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(hung.value(Instant::now()) >= 60.0, "its silence is its load");
}
