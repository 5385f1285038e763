#include "ctl/drill_report.h"

#include <sstream>
#include <string>

#include "gtest/gtest.h"

namespace towline::ctl {
namespace {

constexpr int64_t kInjected = 1'000'000;

DrillWrite Write(const std::string& key, DrillLevel level, int64_t answered_us, uint64_t term = 1) {
  DrillWrite write;
  write.key = key;
  write.level = level;
  write.sent_us = answered_us - 100;
  write.answered_us = answered_us;
  write.attempts = 1;
  write.position.set_term(term);
  write.position.set_lsn(static_cast<uint64_t>(answered_us));
  return write;
}

// A promotion: term 2 begins 350 ms behind the injection; everything is there.
DrillHistory Promotion() {
  DrillHistory history;
  history.id = "d1";
  history.scenario = "kill-primary";
  history.cluster_id = "c";
  history.started_ms = 1'763'769'600'000;
  history.injected_us = kInjected;
  history.ended_us = kInjected + 1'000'000;
  history.new_term_from = 2;
  history.rto_until = "first_write";
  history.marks = {{"promoted", kInjected + 300'000}, {"rejoined", kInjected + 600'000}};
  history.writes = {Write("a", DrillLevel::kReplicas, kInjected - 10'000),
                    Write("b", DrillLevel::kLocal, kInjected - 5'000),
                    Write("c", DrillLevel::kReplicas, kInjected + 350'000, 2),
                    Write("d", DrillLevel::kReplicas, kInjected + 950'000, 2)};
  history.writes[2].failed_us = kInjected + 20'000;
  history.logged.emplace();
  for (const DrillWrite& write : history.writes) {
    history.present[write.key] = write.position.lsn();
    (*history.logged)[write.key] = 1;
  }
  return history;
}

double At(const Json& report, const std::string& name) {
  for (const Json& phase : report["phases"]) {
    if (phase["phase"] == name) return phase["at_ms"];
  }
  return -1;
}

TEST(DrillReport, TimesComeFromTheWrites) {
  const Json report = MakeDrillReport(Promotion());
  EXPECT_TRUE(report["passed"]) << report["failures"];
  EXPECT_EQ(At(report, "detected"), 20);
  EXPECT_EQ(At(report, "promoted"), 300);
  EXPECT_EQ(At(report, "first_write"), 350);
  EXPECT_EQ(At(report, "rejoined"), 600);
  EXPECT_EQ(report["rto_ms"], 350);
  EXPECT_EQ(report["write_pause_ms"], 600) << "from c to d";
  EXPECT_EQ(report["duplicates"], 0);
  EXPECT_EQ(report["started"], "2025-11-22T00:00:00.000Z");
}

TEST(DrillReport, ThePauseCountsTheSilenceAtTheEnd) {
  DrillHistory history = Promotion();
  history.rto_until = "";
  history.writes.resize(2);
  EXPECT_EQ(MakeDrillReport(history)["write_pause_ms"], 1010) << "from a, the last answer before, to the end";
}

TEST(DrillReport, ALocalWriteBeforeTheFirstWriteOfTheOldTermIsNoFirstWrite) {
  DrillHistory history = Promotion();
  history.writes.push_back(Write("e", DrillLevel::kReplicas, kInjected + 50'000, 1));
  EXPECT_EQ(At(MakeDrillReport(history), "first_write"), 350);
}

TEST(DrillReport, LossesAreJudgedByLevel) {
  DrillHistory history = Promotion();
  history.present.erase("b");
  Json report = MakeDrillReport(history);
  EXPECT_EQ(report["rpo_records"]["local"], 1);
  EXPECT_TRUE(report["passed"]) << "losses at level local are not judged by default";
  history.thresholds.rpo_local = 0;
  report = MakeDrillReport(history);
  EXPECT_EQ(DrillExitCode(report), 3);
  history.thresholds.rpo_local = 1;
  EXPECT_EQ(DrillExitCode(MakeDrillReport(history)), 0);

  history.present.erase("c");
  report = MakeDrillReport(history);
  EXPECT_EQ(report["rpo_records"]["replicas"], 1);
  EXPECT_EQ(DrillExitCode(report), 3);
  ASSERT_EQ(report["lost"].size(), 2u);
  EXPECT_EQ(report["lost"][1]["key"], "c");
}

TEST(DrillReport, AWriteWithoutAnAnswerIsNotLost) {
  DrillHistory history = Promotion();
  history.writes[3].answered_us = 0;
  history.present.erase("d");
  const Json report = MakeDrillReport(history);
  EXPECT_EQ(report["rpo_records"]["replicas"], 0);
  EXPECT_EQ(report["writes"]["replicas"]["unanswered"], 1);
}

TEST(DrillReport, ARecordThatIsThereTwiceFails) {
  DrillHistory history = Promotion();
  (*history.logged)["c"] = 3;
  const Json report = MakeDrillReport(history);
  EXPECT_EQ(report["duplicates"], 2);
  EXPECT_EQ(DrillExitCode(report), 3);
  history.logged.reset();
  EXPECT_TRUE(MakeDrillReport(history)["duplicates"].is_null());
}

TEST(DrillReport, AWrongValueFails) {
  DrillHistory history = Promotion();
  history.wrong["a"] = 7;
  EXPECT_EQ(DrillExitCode(MakeDrillReport(history)), 3);
}

TEST(DrillReport, TheRtoHasAThresholdAndAPhaseThatItCountsFrom) {
  DrillHistory history = Promotion();
  history.thresholds.rto_us = 349'000;
  EXPECT_EQ(DrillExitCode(MakeDrillReport(history)), 3);
  history.rto_from = "promoted";
  const Json report = MakeDrillReport(history);
  EXPECT_EQ(report["rto_ms"], 50);
  EXPECT_EQ(report["rto_of"], "promoted to first_write");
  EXPECT_EQ(DrillExitCode(report), 0);
}

TEST(DrillReport, AServiceThatDoesNotComeBackIsAwayToTheEnd) {
  DrillHistory history = Promotion();
  history.writes.resize(2);
  EXPECT_EQ(MakeDrillReport(history)["rto_ms"], 1000);
}

TEST(DrillReport, ResyncsAreExpectedOrForbidden) {
  DrillHistory history = Promotion();
  history.resyncs["full/retained_bytes"] = 1;
  history.resync_expected = "full";
  EXPECT_EQ(DrillExitCode(MakeDrillReport(history)), 0);
  history.resync_forbidden = "full";
  EXPECT_EQ(DrillExitCode(MakeDrillReport(history)), 3);
  history.resyncs = {{"partial/resumed", 1}};
  EXPECT_EQ(DrillExitCode(MakeDrillReport(history)), 3);
}

TEST(DrillReport, QuarantineSaysHowManyOfTheLostWritesAreKept) {
  DrillHistory history = Promotion();
  history.present.erase("b");
  history.quarantine = DrillQuarantine{5, {{"b", 1}, {"c", 1}}};
  const Json report = MakeDrillReport(history);
  EXPECT_EQ(report["quarantine"]["records"], 5);
  EXPECT_EQ(report["quarantine"]["lost_writes"], 1);
}

TEST(DrillReport, WhatIsNoReportIsRefused) {
  EXPECT_FALSE(CheckDrillReport(Json::parse("{}")).ok());
  EXPECT_FALSE(CheckDrillReport(Json::parse("[1]")).ok());
  EXPECT_TRUE(CheckDrillReport(MakeDrillReport(Promotion())).ok());
}

TEST(DrillReport, ThePrintedOneNamesWhatFailed) {
  DrillHistory history = Promotion();
  history.failures.push_back("r1 does not answer");
  std::ostringstream out;
  PrintDrillReport(out, MakeDrillReport(history));
  EXPECT_NE(out.str().find("FAILED     r1 does not answer"), std::string::npos) << out.str();
  EXPECT_EQ(out.str().find("passed\n"), std::string::npos);
}

TEST(DrillMetrics, OtherScenariosAndTheLastSuccessStay) {
  DrillHistory history = Promotion();
  history.scenario = "stall";
  std::string text = DrillMetrics(MakeDrillReport(history), "");
  text = DrillMetrics(MakeDrillReport(Promotion()), text);
  DrillHistory failed = Promotion();
  failed.started_ms += 1000;
  failed.failures.push_back("x");
  text = DrillMetrics(MakeDrillReport(failed), text);
  const auto has = [&text](const std::string& line) { return text.find(line + "\n") != std::string::npos; };
  EXPECT_TRUE(has("towline_drill_passed{scenario=\"stall\"} 1")) << text;
  EXPECT_TRUE(has("towline_drill_passed{scenario=\"kill-primary\"} 0")) << text;
  EXPECT_TRUE(has("towline_drill_last_success_timestamp_seconds{scenario=\"kill-primary\"} 1763769600")) << text;
  EXPECT_TRUE(has("towline_drill_last_run_timestamp_seconds{scenario=\"kill-primary\"} 1763769601")) << text;
  EXPECT_FALSE(has("towline_drill_last_run_timestamp_seconds{scenario=\"kill-primary\"} 1763769600")) << text;
  EXPECT_TRUE(has("towline_drill_rpo_records{scenario=\"stall\",level=\"local\"} 0")) << text;
}

}  // namespace
}  // namespace towline::ctl
