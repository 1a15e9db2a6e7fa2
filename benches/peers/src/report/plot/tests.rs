//! Plots of numbers that are known.

use super::*;
use crate::sample::Sample;
use roxmltree::{Document, Node};

fn sample(line: (&str, &str, u32), engine: &str, round: u32, metric: &str, value: f64) -> Sample {
    let (workload, phase, threads) = line;
    Sample {
        table: "lz4".into(),
        workload: workload.into(),
        phase: phase.into(),
        threads,
        engine: engine.into(),
        round,
        metric: metric.into(),
        value,
    }
}

const FILL: (&str, &str, u32) = ("fillrandom", "", 1);
const READ: (&str, &str, u32) = ("readrandom", "settled", 1);

/// Three rounds of two lines; fjall was not there for the second.
fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for (round, factor) in [(1, 0.9), (2, 1.0), (3, 1.2)] {
        let mut add = |line, engine, metric, value: f64| {
            all.push(sample(line, engine, round, metric, value * factor));
        };
        for (engine, rate) in [("esker", 800e3), ("rocksdb", 200e3), ("fjall", 100e3)] {
            add(FILL, engine, "ops_per_s", rate);
            add(FILL, engine, "write_amp", 4e5 / rate);
            add(FILL, engine, "space_amp", 0.7);
            for (metric, micros) in [("p50_us", 1.0), ("p99_us", 5.0), ("p999_us", 30.0), ("max_us", 9e3)] {
                add(FILL, engine, metric, micros * 4e5 / rate);
            }
        }
        add(READ, "esker", "ops_per_s", 500e3);
        add(READ, "rocksdb", "ops_per_s", 1000e3);
    }
    all
}

fn plot(samples: &[Sample], file: &str) -> String {
    all(&Results::of(samples)).into_iter().find(|plot| plot.file == file).unwrap().svg
}

fn number(node: &Node, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

/// What has the colour of `engine`, without its place in the legend.
fn marks<'a>(svg: &'a Document, engine: &str, shape: &str) -> Vec<Node<'a, 'a>> {
    let all = svg.descendants().filter(|node| node.attribute("class") == Some(engine));
    all.skip(1).filter(|node| node.has_tag_name(shape)).collect()
}

#[test]
fn every_plot_is_well_formed_and_within_its_frame() {
    let plots = all(&Results::of(&samples()));
    let files: Vec<&str> = plots.iter().map(|plot| plot.file).collect();
    assert_eq!(files, ["throughput.svg", "latency.svg", "amplification.svg"]);
    for Plot { file, svg } in &plots {
        let svg = Document::parse(svg).unwrap();
        let size = |name| svg.root_element().attribute(name).unwrap().parse::<f64>().unwrap();
        for (names, limit) in
            [(["x", "x1", "x2", "cx"], size("width")), (["y", "y1", "y2", "cy"], size("height"))]
        {
            for node in svg.descendants() {
                for at in names.iter().filter_map(|name| node.attribute(*name)) {
                    assert!((0.0..=limit).contains(&at.parse().unwrap()), "{file}: {node:?}");
                }
            }
        }
        let words: Vec<&str> = svg.descendants().filter_map(|node| node.text()).collect();
        for word in ["esker", "rocksdb", "fjall", "fillrandom"] {
            assert!(words.contains(&word), "{file} does not say {word}");
        }
    }
}

#[test]
fn dots_lie_where_the_ratio_is() {
    let svg = plot(&samples(), "throughput.svg");
    let svg = Document::parse(&svg).unwrap();
    let dots = |engine| marks(&svg, engine, "circle").iter().map(|d| number(d, "cx")).collect::<Vec<_>>();
    let [one, same] = dots("esker")[..] else { panic!("{svg:?}") };
    let [quarter, double] = dots("rocksdb")[..] else { panic!("{svg:?}") };
    let [eighth] = dots("fjall")[..] else { panic!("a gap where nothing was measured") };
    assert_eq!(one, same, "it is its own measure");
    // 0.25 lies twice as far from 1 as 2 does, and 0.125 three times, on the other side.
    assert!(((one - quarter) / (double - one) - 2.0).abs() < 0.02, "{one} {quarter} {double}");
    assert!(((one - eighth) / (double - one) - 3.0).abs() < 0.02, "{one} {eighth} {double}");
}

#[test]
fn whiskers_go_from_the_slowest_to_the_fastest_round() {
    let svg = plot(&samples(), "throughput.svg");
    let svg = Document::parse(&svg).unwrap();
    let whisker = marks(&svg, "rocksdb", "line")[0];
    let dot = number(&marks(&svg, "rocksdb", "circle")[0], "cx");
    let (low, high) = (number(&whisker, "x1"), number(&whisker, "x2"));
    let expected = 1.2f64.ln() / -(0.9f64.ln());
    assert!(((high - dot) / (dot - low) / expected - 1.0).abs() < 0.05, "{low} {dot} {high}");
}

#[test]
fn a_bar_is_as_long_as_its_number() {
    let svg = plot(&samples(), "amplification.svg");
    let svg = Document::parse(&svg).unwrap();
    let length = |engine: &str| number(&marks(&svg, engine, "rect")[0], "width");
    assert!((length("rocksdb") / length("esker") - 4.0).abs() < 0.05);
}

#[test]
fn an_engines_own_count_of_what_it_wrote_comes_first() {
    let mut samples = samples();
    samples.push(sample(FILL, "rocksdb", 1, "write_amp_own", 4.0));
    let svg = plot(&samples, "amplification.svg");
    let svg = Document::parse(&svg).unwrap();
    let length = |engine: &str| number(&marks(&svg, engine, "rect")[0], "width");
    assert!((length("rocksdb") / length("fjall") - 1.0).abs() < 0.02);
}

#[test]
fn without_a_peer_there_is_no_comparison() {
    let alone: Vec<Sample> = samples().into_iter().filter(|sample| sample.engine == "esker").collect();
    let files: Vec<&str> = all(&Results::of(&alone)).iter().map(|plot| plot.file).collect();
    assert_eq!(files, ["latency.svg", "amplification.svg"]);
    assert!(all(&Results::default()).is_empty());
}

#[test]
fn what_stands_in_the_way_is_escaped() {
    let mut samples = samples();
    samples.extend(["esker", "fjall"].map(|engine| sample(("a<b>&c", "", 1), engine, 1, "ops_per_s", 1.0)));
    let svg = plot(&samples, "throughput.svg");
    let svg = Document::parse(&svg).unwrap();
    assert!(svg.descendants().any(|node| node.text() == Some("a<b>&c")));
}
