use millstream_connect::GenerateSource;
use millstream_connect::event::{Column, ColumnType, Schema};
use millstream_connect::generate::{self, Settings, Simulator, Supply, World, generate_ndjson, nexmark};
use millstream_connect::service::Source;

use crate::support::{next, open};

fn settings() -> Settings {
    Settings { customers: 200, merchants: 400, seed: 7, count: Some(20_000), ..Settings::default() }
}

fn lines(settings: &Settings) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    generate_ndjson(&mut Simulator::new(settings.clone()).unwrap(), u64::MAX, &mut out).unwrap();
    out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect()
}

fn ids(rows: &arrow_array::RecordBatch) -> Vec<String> {
    use arrow_array::cast::AsArray;
    rows.column_by_name("id").unwrap().as_string::<i32>().iter().map(|v| v.unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_source_makes_the_same_events_as_the_file_writer() {
    let source = GenerateSource::new(settings(), generate::schema()).unwrap();
    let mut task = open(&source, None).await.unwrap();
    let mut encoder_out = Vec::new();
    let encoder = millstream_connect::event::json::Encoder::new(&generate::schema(), Default::default());
    let (mut refused, mut good) = (0, 0);
    while let Some(intake) = next(&mut task).await.unwrap() {
        encoder.encode(&intake.rows, &mut encoder_out).unwrap();
        good += intake.rows.num_rows();
        refused += intake.refused.len();
    }
    assert_eq!(good + refused, 20_000);
    let lines = lines(&settings());
    // What the file writer wrote, read by the decoder, is what the source made in columns.
    let mut decoder = millstream_connect::event::json::Decoder::new(&generate::schema(), Default::default());
    let decoded = decoder.decode_lines(&lines.join(&b'\n')).unwrap();
    assert_eq!(decoded.refused.len(), refused);
    let mut again = Vec::new();
    encoder.encode(&decoded.rows, &mut again).unwrap();
    assert!(again == encoder_out, "the columns differ from the lines");
}

#[tokio::test]
async fn a_generator_goes_on_exactly_where_its_position_says() {
    let source = GenerateSource::new(settings(), generate::schema()).unwrap();
    let mut whole = Vec::new();
    let mut task = open(&source, None).await.unwrap();
    let first = next(&mut task).await.unwrap().unwrap();
    whole.extend(ids(&first.rows));
    drop(task);
    let mut task = open(&source, first.position).await.unwrap();
    while let Some(intake) = next(&mut task).await.unwrap() {
        whole.extend(ids(&intake.rows));
    }
    let mut expected = Vec::new();
    let mut task = open(&source, None).await.unwrap();
    while let Some(intake) = next(&mut task).await.unwrap() {
        expected.extend(ids(&intake.rows));
    }
    assert_eq!(whole, expected);
}

#[tokio::test]
async fn another_world_at_an_old_position_is_refused() {
    let source = GenerateSource::new(settings(), generate::schema()).unwrap();
    let mut task = open(&source, None).await.unwrap();
    let position = next(&mut task).await.unwrap().unwrap().position;
    let other = GenerateSource::new(Settings { seed: 8, ..settings() }, generate::schema()).unwrap();
    let error = open(&other, position).await.err().unwrap();
    assert!(!error.retryable() && error.to_string().contains("were 7, 200 and 400"), "{error}");
}

#[tokio::test]
async fn a_rate_is_kept() {
    let source =
        GenerateSource::new(Settings { rate: Some(2000.0), count: Some(400), ..settings() }, generate::schema());
    let source = source.unwrap();
    let mut task = open(&source, None).await.unwrap();
    let began = std::time::Instant::now();
    let mut events = 0;
    while let Some(intake) = next(&mut task).await.unwrap() {
        events += intake.rows.num_rows() + intake.refused.len();
    }
    assert_eq!(events, 400);
    assert!(began.elapsed() >= std::time::Duration::from_millis(190), "too fast: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_topic_without_some_columns_takes_the_others() {
    let schema = Schema::new(vec![
        Column::nullable("note", ColumnType::Json),
        Column::required("card_id", ColumnType::String),
        Column::required("id", ColumnType::String),
    ])
    .unwrap();
    let source = GenerateSource::new(settings(), schema.clone()).unwrap();
    let mut task = open(&source, None).await.unwrap();
    let intake = next(&mut task).await.unwrap().unwrap();
    assert_eq!(intake.rows.schema(), *schema.arrow());
    assert!(source.bounded());
}

#[tokio::test]
async fn a_topic_with_other_columns_is_refused_with_both() {
    let schema = Schema::new(vec![Column::required("amount", ColumnType::Double)]).unwrap();
    let error = open(&GenerateSource::new(settings(), schema).unwrap(), None).await.err().unwrap();
    assert!(error.to_string().contains("column `amount` is decimal(12,2) there and double here"), "{error}");
}

#[tokio::test]
async fn sources_of_one_nexmark_count_end_at_the_same_event() {
    let supply = Supply { count: Some(10_000), ..Supply::default() };
    let mut rows = Vec::new();
    for kind in [nexmark::Kind::Persons, nexmark::Kind::Auctions, nexmark::Kind::Bids] {
        let world = World::Nexmark(nexmark::Settings { supply: supply.clone(), kind });
        let source = GenerateSource::of(world.clone(), world.schema()).unwrap();
        let mut task = open(&source, None).await.unwrap();
        let mut sum = 0;
        while let Some(intake) = next(&mut task).await.unwrap() {
            sum += intake.rows.num_rows();
        }
        rows.push(sum);
    }
    assert_eq!(rows, [200, 600, 9200]);
}

/// The example's lookup files are those of its simulator's seed; `UPDATE=1` writes them.
#[test]
fn the_fraud_example_knows_the_customers_and_merchants_of_its_traffic() {
    let settings = Settings { seed: 7, customers: 1000, merchants: 2000, ..Settings::default() };
    let simulator = Simulator::new(settings).unwrap();
    let (mut customers, mut merchants) = (Vec::new(), Vec::new());
    generate::generate_customers_csv(&simulator, &mut customers).unwrap();
    generate::generate_merchants_csv(&simulator, &mut merchants).unwrap();
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fraud/data");
    for (file, made) in [("customers.csv", customers), ("merchants.csv", merchants)] {
        let path = data.join(file);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&data).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        let there = std::fs::read(&path).unwrap_or_default();
        assert!(there == made, "{} is not the seed's; run this test with UPDATE=1", path.display());
    }
}

/// Prints what one core writes; in the long run only, as it measures and proves nothing.
#[test]
fn the_file_writer_says_how_fast_it_is() {
    if std::env::var_os("MILLSTREAM_LONG").is_none() {
        return;
    }
    let mut simulator = Simulator::new(Settings::default()).unwrap();
    let mut out = std::io::BufWriter::new(std::io::sink());
    let began = std::time::Instant::now();
    let counts = generate_ndjson(&mut simulator, 3_000_000, &mut out).unwrap();
    println!("{:.0} events/s", counts.events as f64 / began.elapsed().as_secs_f64());
}
