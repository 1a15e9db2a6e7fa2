//! Numbers as people read them, and tables in Markdown that can be read as they are.

/// A quantity, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// Operations per second.
    Rate,
    Micros,
    Millis,
    Seconds,
    Bytes,
    /// Of one, as a percentage.
    Part,
    Number,
}

impl Unit {
    pub fn write(self, value: f64) -> String {
        match self {
            Unit::Rate => scaled(value, &[(1e6, "M"), (1e3, "k")], 1.0, ""),
            Unit::Micros => scaled(value, &[(1e6, " s"), (1e3, " ms")], 1.0, " us"),
            Unit::Millis => scaled(value, &[(1e3, " s")], 1.0, " ms"),
            Unit::Seconds => scaled(value, &[], 1.0, " s"),
            Unit::Bytes => scaled(value, &[(1e9, " GB"), (1e6, " MB"), (1e3, " kB")], 1.0, " B"),
            Unit::Part => format!("{} %", three_digits(value * 100.0)),
            Unit::Number => three_digits(value),
        }
    }
}

/// In the first of `units` that is not larger than the value, or in the last.
fn scaled(value: f64, units: &[(f64, &str)], least: f64, last: &str) -> String {
    // What would be rounded to 1000 of a unit is 1 of the next.
    let fits = |(size, _): &&(f64, &str)| value.abs() >= size * 0.9995;
    let (size, name) = units.iter().find(fits).copied().unwrap_or((least, last));
    format!("{}{name}", three_digits(value / size))
}

/// As many digits as mean something.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.0995 => 2,
        0.0 => 0,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// Rows of cells below a head. The first column is text, the others are numbers.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { rows: vec![head.into_iter().map(Into::into).collect()] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub fn markdown(&self) -> String {
        let columns = self.rows[0].len();
        let wide = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(2)
        };
        let widths: Vec<usize> = (0..columns).map(wide).collect();
        let mut out = String::new();
        for (no, row) in self.rows.iter().enumerate() {
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let cell = if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                out += &format!("| {cell} ");
            }
            out += "|\n";
            if no == 0 {
                let rule = |(column, &width): (usize, &usize)| match column {
                    0 => format!("|{:-<1$}", "", width + 2),
                    _ => format!("|{:-<1$}:", "", width + 1),
                };
                out += &widths.iter().enumerate().map(rule).collect::<String>();
                out += "|\n";
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let of = [(1234.6, "1235"), (99.96, "100"), (12.345, "12.3"), (1.234, "1.23"), (0.25, "0.25")];
        for (value, text) in of.into_iter().chain([(0.0123, "0.012"), (0.0, "0")]) {
            assert_eq!(three_digits(value), text);
        }
    }

    #[test]
    fn units_grow_with_the_value() {
        let of = [
            (Unit::Rate, 1_234_567.0, "1.23M"),
            (Unit::Rate, 999_600.0, "1.00M"),
            (Unit::Rate, 540.0, "540"),
            (Unit::Micros, 0.52, "0.52 us"),
            (Unit::Micros, 16_300.0, "16.3 ms"),
            (Unit::Bytes, 464e6, "464 MB"),
            (Unit::Part, 0.953, "95.3 %"),
        ];
        for (unit, value, text) in of {
            assert_eq!(unit.write(value), text);
        }
    }

    #[test]
    fn a_table_is_padded_and_its_bars_escaped() {
        let mut table = Table::new(["", "esker"]);
        table.row(["a|b".to_string(), "1.2".to_string()]);
        assert_eq!(table.markdown(), "|      | esker |\n|------|------:|\n| a\\|b |   1.2 |\n");
        assert!(!table.is_empty());
    }
}
