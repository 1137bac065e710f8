#include "tests/libmigrate/guest/adoption_world.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>

#include "base/process_identity.h"
#include "libmigrate/cell/internal_protocol.h"
#include "libmigrate/guest/guest_setup.h"
#include "transport/handoff.h"

namespace migrate {
namespace {

/// A pid that nobody has.
pid_t dead_process() {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  return child;
}

}  // namespace

AdoptionWorld::AdoptionWorld() {
  noted.set_process(std::string(16, 'p'));
  noted.set_mode("lazy");
  noted.set_home("tcp://127.0.0.1:7071");
  noted.set_source("tcp://127.0.0.1:7071");
  noted.set_token("token");
  noted.set_command("subject");
  noted.mutable_credentials()->set_uid_real(::getuid());
  *noted.mutable_relay()->mutable_relay() = make_relay_state({});
}

AdoptionWorld::~AdoptionWorld() {
  if (init_thread_.joinable()) {
    init_thread_.join();
  }
}

SessionFile AdoptionWorld::leave(GuestPhase phase) {
  SessionFile file =
      SessionFile::create(directory.path(), cell_session_name(to_hex(session))).value();
  file.mark().worker = dead_process();
  file.mark().worker_start = 1;
  file.mark().process = seed.id();
  file.mark().process_start = start_time(seed.id());
  file.mark().init = init.id();
  file.mark().init_start = start_time(init.id());
  file.mark().phase.enter(phase);
  EXPECT_TRUE(file.save(noted.SerializeAsString()));
  mark = Mapping::of_file(file.fd(), sizeof(SessionMark)).value();
  return file;
}

void AdoptionWorld::hold(Kept what, UniqueFd fd) {
  held_.emplace_back(what, std::move(fd));
}

std::vector<Kept> AdoptionWorld::dropped() {
  init_thread_.join();
  std::vector<Kept> all;
  for (auto told = cell::receive_message(told_.get(), false); told;
       told = cell::receive_message(told_.get(), false)) {
    if (told->message.kind == cell::MessageKind::kDrop) {
      all.push_back(told->message.kept);
    }
  }
  return all;
}

void AdoptionWorld::start_init() {
  auto listener = std::make_shared<UnixListener>(
      UnixListener::create(cell_socket(context, session), 0600).value());
  init_thread_ = std::thread([this, listener] {
    auto worker = listener->accept(5000);
    if (!worker) {
      return;
    }
    for (const auto& [what, fd] : held_) {
      const int borrowed = fd.get();
      EXPECT_TRUE(cell::send_message(worker->get(),
                                     {.kind = cell::MessageKind::kKept, .kept = what},
                                     std::span(&borrowed, 1)));
    }
    EXPECT_TRUE(cell::send_message(worker->get(), {.kind = cell::MessageKind::kKeptEnd}, {}));
    told_ = std::move(*worker);
  });
}

}  // namespace migrate
