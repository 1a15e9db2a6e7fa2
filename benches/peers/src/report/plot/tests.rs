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

/// Left and right end of each bar of `engine`, without that in the legend.
fn bars(svg: &Document, engine: &str) -> Vec<(f64, f64)> {
    let number = |node: &Node, name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
    let rects =
        svg.descendants().filter(|node| node.has_tag_name("rect") && node.attribute("class") == Some(engine));
    rects.skip(1).map(|r| (number(&r, "x"), number(&r, "x") + number(&r, "width"))).collect()
}

#[test]
fn every_plot_is_well_formed_and_within_its_frame() {
    let plots = all(&Results::of(&samples()));
    let files: Vec<&str> = plots.iter().map(|plot| plot.file.as_str()).collect();
    assert_eq!(files, ["throughput-lz4.svg", "latency-lz4.svg", "amplification-lz4.svg"]);
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
fn bars_end_where_the_ratio_is() {
    let svg = plot(&samples(), "throughput-lz4.svg");
    let svg = Document::parse(&svg).unwrap();
    let rocksdb = bars(&svg, "rocksdb");
    let fjall = bars(&svg, "fjall");
    let [(quarter, one), (base, double)] = rocksdb[..] else { panic!("{rocksdb:?}") };
    assert_eq!(one, base, "both begin where Esker is");
    // 0.25 lies twice as far from 1 as 2 does, and 0.125 three times, on the other side.
    assert!(((one - quarter) / (double - base) - 2.0).abs() < 0.02, "{rocksdb:?}");
    assert_eq!(fjall.len(), 1, "a gap where there was nothing measured");
    assert!(((fjall[0].1 - fjall[0].0) / (double - base) - 3.0).abs() < 0.02, "{fjall:?}");
}

#[test]
fn a_linear_bar_is_as_long_as_its_number() {
    let svg = plot(&samples(), "amplification-lz4.svg");
    let svg = Document::parse(&svg).unwrap();
    let length = |engine: &str| bars(&svg, engine).first().map(|(from, to)| to - from).unwrap();
    assert!((length("rocksdb") / length("esker") - 4.0).abs() < 0.05);
}

#[test]
fn without_a_peer_there_is_no_comparison() {
    let alone: Vec<Sample> = samples().into_iter().filter(|sample| sample.engine == "esker").collect();
    let files: Vec<String> = all(&Results::of(&alone)).into_iter().map(|plot| plot.file).collect();
    assert_eq!(files, ["latency-lz4.svg", "amplification-lz4.svg"]);
    assert!(all(&Results::default()).is_empty());
}

#[test]
fn what_stands_in_the_way_is_escaped() {
    let mut samples = samples();
    samples.push(sample(("a<b>&c", "", 1), "esker", 1, "ops_per_s", 1.0));
    let svg = plot(&samples, "throughput-lz4.svg");
    let svg = Document::parse(&svg).unwrap();
    assert!(svg.descendants().any(|node| node.text() == Some("a<b>&c")));
}
