//! `GET /stats`: what a tenant's runs add up to, per agent, edge, model and tool.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tailspan_core::{
    event::rfc3339_ms,
    stats::{Dimension, Figures, NAMES_OF_A_BUCKET, OTHER, Window, edge_parts},
};
use tailspan_service::{
    App,
    error::ApiError,
    extract::{Params, Read, Tenant},
};

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub(crate) struct StatsParams {
    /// How far back; `1h` when absent.
    #[cfg_attr(feature = "openapi", param(pattern = "^(5m|1h|24h|7d|all)$"))]
    window: Option<String>,
    /// Some of `agent`, `edge`, `model`, `tool`, with commas; all when absent.
    #[cfg_attr(
        feature = "openapi",
        param(pattern = "^(agent|edge|model|tool)(,(agent|edge|model|tool))*$")
    )]
    by: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct StatsPage {
    window: &'static str,
    /// Calls that ended since then count; absent with `window=all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    from: Option<String>,
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    to: String,
    /// Some names found no place under their own: they count under "(other)".
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Section>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<Section>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Section>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<Section>,
}

/// What is counted of one dimension.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = StatsSection))]
pub(crate) struct Section {
    /// By number of calls, the most first.
    rows: Vec<StatsRow>,
    total: Counts,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct StatsRow {
    #[serde(flatten)]
    name: Name,
    #[serde(flatten)]
    counts: Counts,
}

/// What a row is of.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = StatsName))]
#[serde(untagged)]
pub(crate) enum Name {
    Agent {
        agent: String,
    },
    Edge {
        /// The agent that called.
        source: String,
        /// The agent that was called, and the step that this was in it.
        target: String,
        target_function: String,
    },
    Model {
        model: String,
    },
    Tool {
        tool: String,
    },
}

/// How often, how long, how much.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = StatsCounts))]
pub(crate) struct Counts {
    calls: u64,
    errors: u64,
    /// 0 to 1.
    error_rate: f64,
    input_tokens: u64,
    output_tokens: u64,
    /// Over the model calls whose cost is known; absent when of none it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    /// Model calls that `cost_usd` lacks.
    unpriced_calls: u64,
    /// Absent where nothing ended. Quantiles are at most 12.5 % high and never low.
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ms: Option<f64>,
}

/// What the tenant's runs add up to, per agent, edge, model and tool.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/stats", tag = "traces", params(StatsParams),
    responses((status = 200, description = "the statistics of a window", body = StatsPage)),
))]
pub(crate) async fn get_stats(
    Tenant(tenant, _): Tenant<Read>,
    Params(params): Params<StatsParams>,
    State(app): State<App>,
) -> Result<Json<StatsPage>, ApiError> {
    let window = window(params.window.as_deref())?;
    let dimensions = dimensions(params.by.as_deref())?;
    let mut stats = app.log.stats(&tenant, window, &dimensions).await?;
    let mut truncated = false;
    let mut section = |dimension| {
        let rows = stats.rows.remove(&dimension)?;
        let (section, cut) = section_of(dimension, rows.into_iter().collect());
        truncated |= cut;
        Some(section)
    };
    let [agent, edge, model, tool] = Dimension::ALL.map(&mut section);
    Ok(Json(StatsPage {
        window: window.as_str(),
        from: stats.from_unix_ms.map(rfc3339_ms),
        to: rfc3339_ms(stats.to_unix_ms),
        truncated,
        agent,
        edge,
        model,
        tool,
    }))
}

fn window(given: Option<&str>) -> Result<Window, ApiError> {
    let known = || Window::EVERY.map(Window::as_str).join(", ");
    given.map_or(Ok(Window::default()), |text| {
        text.parse().map_err(|()| {
            ApiError::invalid(
                "invalid_parameter",
                format!("window must be one of {}", known()),
            )
        })
    })
}

/// Without a word about it: all of them.
fn dimensions(given: Option<&str>) -> Result<Vec<Dimension>, ApiError> {
    let known = || Dimension::ALL.map(Dimension::as_str).join(", ");
    let Some(given) = given else {
        return Ok(Dimension::ALL.to_vec());
    };
    let mut dimensions = Vec::new();
    for word in given.split(',') {
        let dimension = word.trim().parse().map_err(|()| {
            let message = format!("by must be one of {}, or some with commas", known());
            ApiError::invalid("invalid_parameter", message)
        })?;
        if !dimensions.contains(&dimension) {
            dimensions.push(dimension);
        }
    }
    Ok(dimensions)
}

/// The rows, the most called first, and whether some names had to go into one.
fn section_of(dimension: Dimension, mut rows: Vec<(String, Figures)>) -> (Section, bool) {
    let mut total = Figures::default();
    rows.iter().for_each(|(_, figures)| total.merge(figures));
    // What has no name of its own comes last.
    rows.sort_by(|(one, ones), (other, others)| {
        let order = |name: &str, figures: &Figures| (name == OTHER, u64::MAX - figures.calls);
        (order(one, ones), one).cmp(&(order(other, others), other))
    });
    let is_other = |row: &(String, Figures)| row.0 == OTHER;
    let mut rest = Figures::default();
    let mut truncated = false;
    if rows.len() > NAMES_OF_A_BUCKET || rows.last().is_some_and(is_other) {
        truncated = true;
        let own = rows.iter().filter(|row| !is_other(row)).count();
        for (_, figures) in rows.drain(own.min(NAMES_OF_A_BUCKET)..) {
            rest.merge(&figures);
        }
        rows.push((OTHER.to_owned(), rest));
    }
    let rows = rows.into_iter().map(|(name, figures)| StatsRow {
        name: named(dimension, name),
        counts: counts(&figures),
    });
    let section = Section {
        rows: rows.collect(),
        total: counts(&total),
    };
    (section, truncated)
}

fn named(dimension: Dimension, name: String) -> Name {
    match dimension {
        Dimension::Agent => Name::Agent { agent: name },
        Dimension::Model => Name::Model { model: name },
        Dimension::Tool => Name::Tool { tool: name },
        Dimension::Edge => {
            let (source, target, target_function) = edge_parts(&name);
            Name::Edge {
                source: source.to_owned(),
                target: target.to_owned(),
                target_function: target_function.to_owned(),
            }
        }
    }
}

fn counts(figures: &Figures) -> Counts {
    let quantile = |q| figures.durations.quantile(q).map(three_decimals);
    Counts {
        calls: figures.calls,
        errors: figures.errors,
        error_rate: match figures.calls {
            0 => 0.0,
            calls => figures.errors as f64 / calls as f64,
        },
        input_tokens: figures.input_tokens,
        output_tokens: figures.output_tokens,
        cost_usd: figures.cost_usd(),
        unpriced_calls: figures.unpriced_calls,
        avg_ms: figures.mean_ms().map(three_decimals),
        p50_ms: quantile(0.5),
        p95_ms: quantile(0.95),
        p99_ms: quantile(0.99),
        max_ms: figures.durations.longest_ms().map(three_decimals),
    }
}

/// Microseconds; what is less is rounded up, so that no quantile becomes low.
fn three_decimals(ms: f64) -> f64 {
    (ms * 1e3).ceil() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_by_calls_and_what_has_no_place_comes_last_as_one() {
        let figures = |calls: u64| {
            let mut figures = Figures::default();
            (0..calls).for_each(|_| figures.record(2_000_000, false));
            figures
        };
        let rows: Vec<_> = (0..250)
            .map(|n| (format!("t{n:03}"), figures(1 + n % 3)))
            .chain([(OTHER.to_owned(), figures(9))])
            .collect();
        let (section, truncated) = section_of(Dimension::Tool, rows);
        assert!(truncated);
        assert_eq!(section.rows.len(), NAMES_OF_A_BUCKET + 1);
        let row = |at: usize| {
            let Name::Tool { tool } = &section.rows[at].name else {
                panic!("a tool");
            };
            (tool.as_str(), section.rows[at].counts.calls)
        };
        assert_eq!((row(0), row(199)), (("t002", 3), ("t099", 1)));
        assert_eq!(row(200).0, OTHER);
        let sum: u64 = section.rows.iter().map(|row| row.counts.calls).sum();
        assert_eq!((sum, section.total.calls), (508, 508));
        assert!(!section_of(Dimension::Tool, vec![("a".to_owned(), figures(1))]).1);
    }

    #[test]
    fn unknown_windows_and_dimensions_are_refused() {
        assert!(window(Some("2h")).is_err() && dimensions(Some("agents")).is_err());
        assert_eq!(window(None).unwrap(), Window::Hour);
        assert_eq!(
            dimensions(Some("tool,edge,tool")).unwrap(),
            [Dimension::Tool, Dimension::Edge]
        );
    }
}
