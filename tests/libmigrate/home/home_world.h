#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libmigrate/home/home_life.h"
#include "libmigrate/relay/guest_relay.h"
#include "tests/libmigrate/home/stand_ins.h"

namespace migrate::home_testing {

using nlohmann::json;

/// A client of the local socket.
class Client {
 public:
  explicit Client(UniqueFd socket) : socket_(std::move(socket)) {}

  /// The results that it has got so far, of which there should be one in the end.
  const std::vector<json>& results();
  /// Its exit code; -1 while it has no result, -2 if it got more than one, -3 if it was hung up on.
  int exit();
  /// What the result says of an error.
  std::string error();
  /// The events before the result.
  const std::vector<std::string>& events();

 private:
  void read_all();

  UniqueFd socket_;
  std::vector<json> results_;
  std::vector<std::string> events_;
  bool hung_up_ = false;
};

/// The place where the process runs, as its home hears of it.
struct Place {
  std::unique_ptr<GuestRelay> relay;
  std::vector<StreamEndpoint> ends;  ///< Of its streams, the process's.
  std::vector<int> signals;          ///< That came from home.
  bool is_to_call = false;           ///< It has lost its link, and calls again half a second later.
};

/// A worker at home in this process: its phases, a clock and a mailbox of the test's, stand-ins for
/// the move and what is parked, and a real record.
class HomeWorld : public testing::Test {
 protected:
  HomeWorld();
  ~HomeWorld() override;

  /// A worker begins; runs until it ends or dies (then false).
  bool move_away();
  /// A new one takes over. False: it cannot, or it has died too.
  bool take_over();

  /// Has `act` done in the first turn of the phase called `phase` (of the next worker, too, if
  /// called again): InDoubt, Serving, ChildrenLeft, Ended, Killed or Over.
  void in(const std::string& phase, std::function<void()> act);
  /// Another process, as if nothing had happened.
  void start_anew();
  /// Has it done so long from now, by the test's clock.
  void later(int milliseconds, std::function<void()> act);
  /// The worker dies now.
  [[noreturn]] static void die() { throw WorkerDied(); }

  /// A client asks for something.
  Client& ask(const std::string& text);
  Client& ask(const json& request) { return ask(request.dump()); }
  /// An operator decides; root, unless there is to be no asker.
  Client& resolve(const std::string& action);
  /// The client that asks for the move.
  Client& asking(MoveWait wait);
  /// A peer that was let in, for `purpose`. Returns its end of the connection.
  std::unique_ptr<Channel> connect(Purpose purpose);

  /// The process calls home, from where it runs; again, if it has.
  void call();
  /// It has ended there.
  void exits(int wait_status, bool keep_streams = false);
  void children_end() { place_.relay->report_descendants_ended(); }

  /// A pipe, one of whose ends is the process's: stream `id`.
  UniqueFd add_stream(std::uint32_t id);
  /// What the daemon and a new worker would see.
  std::optional<ProcessRecord> row();
  bool has_file();
  std::string phases() const;
  int milliseconds() const { return static_cast<int>((now_us_ - kBegin) / 1000); }

  static constexpr std::int64_t kBegin = 1'000'000'000;
  static constexpr int kMostTurnsAtOnce = 100;

  Doings doings_;
  Place place_;
  MoveRequest request_;  ///< Of pid 0: of this process.
  /// After so many turns of its phases a worker does not do what it should, and the test fails.
  int most_turns_ = 1'000;
  HomeSurroundings around_;
  std::optional<HomeRecord> record_;
  Asking asking_;
  json answer_ = {{"event", "result"}, {"exit", 0}};  ///< Of a place that is asked; null: none.
  bool answers_ = false;                              ///< Whether one can be reached.
  std::vector<json> asked_;                           ///< What places were asked.
  std::deque<Letter> letters_;

 private:
  bool live(const std::function<bool(HomeLife&, RealFiles&)>& life);
  void run(WorkerPhase& phase);
  bool has_news(std::vector<pollfd> polled);
  void turn_world(const std::string& name);
  Result<std::unique_ptr<Channel>> connect_to_place(const Whereabouts& where);

  std::string directory_;
  SessionId process_{};
  std::int64_t now_us_ = kBegin;
  int turns_ = 0;
  int turns_at_once_ = 0;
  std::vector<std::string> phases_;
  std::multimap<std::string, std::function<void()>> in_phase_;
  std::multimap<std::int64_t, std::function<void()>> later_;
  std::deque<Client> clients_;
  std::vector<UniqueFd> ends_;  // of the process
  std::vector<RelayStreamSpec> specs_;
  std::vector<std::unique_ptr<Channel>> peers_;
};

}  // namespace migrate::home_testing
