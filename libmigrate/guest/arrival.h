#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/cell/cell.h"
#include "libmigrate/groups/guest_groups.h"
#include "libmigrate/guest/guest.h"
#include "libmigrate/guest/guest_pages.h"
#include "libmigrate/guest/guest_world.h"
#include "libmigrate/host/letter_request.h"
#include "libmigrate/host/mailbox.h"
#include "libmigrate/host/worker_context.h"
#include "libmigrate/move/control_channel.h"
#include "libmigrate/requests/move_plan.h"
#include "libmigrate/restore/seed_restorer.h"

namespace migrate {

/// A process on its way here, from the offer until it runs (kPrepared to kRan). What is needed only
/// until then ends with it; the Guest stays. Owned by one thread, the tracer of the process.
class Arrival {
 public:
  /// `context` and `world` are borrowed, and outlive the guest.
  Arrival(const WorkerContext& context, PeerTrust::Peer source, const SessionId& session,
          std::function<void(int connection)> become_worker, const GuestWorld& world);

  /// What an arrival leaves.
  struct Arrived {
    std::unique_ptr<Guest> guest;
    std::optional<Mailbox> mailbox;
    ClockOffsets host_clocks;
    std::vector<Letter> early;  ///< Requests that came before it ran.
  };
  /// Takes the process in. Nothing: it was refused, or whoever offered it only asked, or it failed;
  /// the source was told.
  std::optional<Arrived> take_in();

 private:
  static constexpr int kFinalTimeoutMs = 60000;

  Result<bool> receive_offer();
  Result<std::vector<wire::Refusal>> judge();
  void tell_unkept(wire::OfferReply& reply) const;
  Result<void> answer(const std::vector<wire::Refusal>& refusals);
  Result<void> make_guest();
  Result<void> connect();
  Result<void> run_process();
  void settle_in(const wire::Run& run);
  void give_up(const Error& error);
  // arrival_restore.cc
  Result<void> prepare();
  void note_offer();
  Result<CellOptions> cell_options();
  Result<void> ask_clocks(CellOptions& options);
  Result<void> open_mailbox();
  Result<void> make_pager(UniqueFd userfault);
  Result<wire::Final> receive_final();
  Result<void> restore(wire::Final final);
  Result<std::vector<StreamEndpoint>> make_relay(const wire::RelayState& state,
                                                 const wire::Image& image);
  Result<std::vector<TerminalParts>> make_terminals(const wire::Objects& objects);
  Result<void> bring_datagrams(const wire::Objects& objects);
  static Result<NetworkParts> make_network(const wire::Objects& objects);
  static Result<std::vector<UnixConnectionParts>> make_unix_connections(
      const wire::Objects& objects);
  static Result<std::vector<ConnectionParts>> make_connections(const wire::Objects& objects);
  Result<void> check_untouched(const PageSet& pages) const;
  Result<void> check_final(const wire::Image& image) const;
  Result<void> adapt(const wire::Image& image);
  Result<void> receive_content(const wire::Image& image);
  Result<void> start_pager(const wire::Image& image);
  Result<void> note_image(const wire::Image& image);
  GuestRecord& record() { return arrived_.guest->record(); }

  const WorkerContext& context_;
  const SessionId session_;
  const PeerIdentity source_;  // who offers it
  const std::function<void(int connection)> become_worker_;
  const GuestWorld& world_;
  std::unique_ptr<ControlChannel> control_;
  wire::Offer offer_;
  MovePlan plan_;
  wire::HostFacts own_facts_;
  GuestGroups groups_;
  bool trusted_ = false;             // the source may bring root's processes
  std::int64_t cell_offset_ns_ = 0;  // CLOCK_MONOTONIC of the cell minus ours
  Arrived arrived_;
  EarlyLetters early_;
  CellControl* cell_ = nullptr;  // the guest's
  GuestPages* pages_ = nullptr;  // the guest's
  std::unique_ptr<SeedRestorer> restorer_;
  UniqueFd userfault_copy_;         // for the cell's init
  std::optional<Gateway> gateway_;  // until the relay has it
};

}  // namespace migrate
