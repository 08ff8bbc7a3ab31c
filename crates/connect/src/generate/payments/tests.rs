use super::*;

fn settings() -> Settings {
    Settings { customers: 500, merchants: 1000, seed: 42, ..Settings::default() }
}

fn simulator() -> Simulator {
    Simulator::new(settings()).unwrap()
}

#[test]
fn equal_seeds_give_equal_payments_and_others_do_not() {
    let a: Vec<Payment> = simulator().take(5000).collect();
    let b: Vec<Payment> = simulator().take(5000).collect();
    let c: Vec<Payment> = Simulator::new(Settings { seed: 43, ..settings() }).unwrap().take(5000).collect();
    assert_eq!(a, b);
    assert_ne!(a, c);
}

#[test]
fn the_stream_goes_on_from_any_place() {
    let mut whole = simulator();
    let mut places = Vec::new();
    let mut all = Vec::new();
    for _ in 0..4000 {
        places.push(whole.place());
        all.push(whole.next().unwrap());
    }
    let mut other = simulator();
    for at in [0, 1, 517, 999, 1000, 2345, 3999] {
        other.seek(places[at]);
        assert_eq!(other.next().unwrap(), all[at], "event {at}");
    }
}

#[test]
fn numbers_follow_each_other_and_times_are_at_most_five_seconds_out_of_order() {
    let mut simulator = Simulator::new(Settings { customers: 20_000, merchants: 20_000, ..settings() }).unwrap();
    let (mut latest, mut late) = (0, 0);
    for number in 0..100_000 {
        let payment = simulator.next().unwrap();
        assert_eq!(payment.number, number);
        let micros = simulator.micros(&payment);
        assert!(latest - micros <= 5_000_000, "{} is too late", payment.number);
        late += u32::from(micros < latest);
        latest = latest.max(micros);
    }
    assert!(late > 10_000, "only {late} of 100,000 are out of order");
}

#[test]
fn the_figures_are_those_of_the_book() {
    let mut simulator = Simulator::new(Settings { bad: 0.0, ..Settings::default() }).unwrap();
    let (mut counts, mut cents, mut last_day) = (Counts::default(), 0, 0);
    let days = 40;
    loop {
        let payment = simulator.next().unwrap();
        if payment.day >= days {
            break;
        }
        last_day = payment.day;
        counts.add(&payment);
        if payment.scenario != 3 {
            cents += payment.cents;
        }
    }
    assert_eq!(last_day, days - 1);
    // 5,000 customers x 2 a day x P(|time - noon| < 12 h with a deviation of 20,000 s) = 0.969.
    let a_day = counts.events as f64 / days as f64;
    assert!((9_300.0..10_100.0).contains(&a_day), "{a_day} payments a day");
    // The book's data set has a mean amount of 53.6.
    let mean = cents as f64 / 100.0 / (counts.events - counts.scenario[3]) as f64;
    assert!((50.0..57.0).contains(&mean), "mean amount {mean}");
    // The book's: 0.05 % of scenario 1, 0.5 % of 2, 0.27 % of 3, after a warm-up of 28 days.
    let share = |scenario: usize| counts.scenario[scenario] as f64 / counts.events as f64 * 100.0;
    assert!((0.01..0.2).contains(&share(1)), "scenario 1: {} %", share(1));
    assert!((0.2..0.8).contains(&share(2)), "scenario 2: {} %", share(2));
    assert!((0.1..0.45).contains(&share(3)), "scenario 3: {} %", share(3));
}

#[test]
fn bad_events_are_one_and_a_half_percent_of_all_kinds() {
    let mut counts = Counts::default();
    simulator().take(100_000).for_each(|p| counts.add(&p));
    let bad = counts.bad_total();
    assert!((1_350..1_650).contains(&bad), "{bad} bad events in 100,000");
    assert!(counts.bad.iter().all(|n| *n > 130), "{:?}", counts.bad);
}

#[test]
fn lines_are_what_they_claim_to_be() {
    let mut simulator = simulator();
    let mut out = Vec::new();
    let counts = generate_ndjson(&mut simulator, 20_000, &mut out).unwrap();
    assert_eq!(counts.events, 20_000);
    let mut broken = 0;
    for line in out.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else {
            broken += 1;
            continue;
        };
        if value["scenario"] != 0 {
            assert_eq!(value["fraud"], true);
        }
    }
    assert_eq!(broken, counts.bad_of(Bad::Malformed));
    let first: serde_json::Value = serde_json::from_slice(out.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(first["id"], "T000000000");
    assert!(first["at"].as_str().unwrap().starts_with("2026-01-01T"), "{first}");
    let per_event = out.len() / 20_000;
    assert!((120..200).contains(&per_event), "{per_event} bytes per event");
}

#[test]
fn lookup_files_name_every_customer_and_merchant_of_the_seed() {
    let simulator = simulator();
    let (mut customers, mut merchants) = (Vec::new(), Vec::new());
    generate_customers_csv(&simulator, &mut customers).unwrap();
    generate_merchants_csv(&simulator, &mut merchants).unwrap();
    let customers = String::from_utf8(customers).unwrap();
    assert_eq!(customers.lines().count(), 501);
    assert_eq!(customers.lines().next().unwrap(), "card_id,segment,home_country,daily_limit");
    assert!(customers.lines().nth(8).unwrap().starts_with("C00007,"));
    assert_eq!(String::from_utf8(merchants).unwrap().lines().count(), 1001);
}

#[test]
fn most_payments_stay_in_the_country_of_the_customer() {
    let simulator = simulator();
    let mut homes = Vec::new();
    generate_customers_csv(&simulator, &mut homes).unwrap();
    let homes: Vec<String> =
        String::from_utf8(homes).unwrap().lines().skip(1).map(|l| l.split(',').nth(2).unwrap().to_owned()).collect();
    let home = simulator.take(10_000).filter(|p| homes[p.customer as usize] == p.country).count();
    assert!((8_500..9_990).contains(&home), "{home} of 10,000 at home");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    for (settings, setting) in [
        (Settings { customers: 0, ..settings() }, "customers"),
        (Settings { merchants: 0, ..settings() }, "merchants"),
        (Settings { bad: 1.5, ..settings() }, "bad"),
        (Settings { rate: Some(0.0), ..settings() }, "rate"),
        (Settings { rate: Some(f64::NAN), ..settings() }, "rate"),
    ] {
        assert_eq!(settings.check().unwrap_err().setting, setting);
    }
}

#[test]
fn a_tiny_world_works() {
    let tiny = Settings { customers: 1, merchants: 1, ..Settings::default() };
    assert_eq!(Simulator::new(tiny).unwrap().take(100).count(), 100);
}
