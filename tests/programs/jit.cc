// As a just-in-time compiler (.NET) does: machine code is written by one mapping of a memory file
// of terabytes, and run by another.
//   jit ROUNDS      prints a number that all functions together have made, every so many rounds
#include <vector>

#include "tests/programs/check.h"

namespace {

using check::called;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPiecePages = 16;
constexpr std::size_t kPieces = 40;
constexpr off_t kSize = off_t{2} << 40;
constexpr int kRoundsEach = 20000;

struct Piece {
  unsigned char* written;
  const unsigned char* run;
};

Piece map_piece(int memory, std::size_t number) {
  constexpr off_t kDistance = kSize / static_cast<off_t>(kPieces) / 65536 * 65536;
  const off_t offset = static_cast<off_t>(number) * kDistance;
  const auto map = [&](int protection) {
    void* const piece =
        ::mmap(nullptr, kPiecePages * kPage, protection, MAP_SHARED, memory, offset);
    CHECK(piece != MAP_FAILED);
    return static_cast<unsigned char*>(piece);
  };
  return {map(PROT_READ | PROT_WRITE), map(PROT_READ | PROT_EXEC)};
}

/// A function that returns `value`, at a place in the piece.
std::uint32_t make_and_call(const Piece& piece, std::size_t place, std::uint32_t value) {
  constexpr unsigned char kMove = 0xb8;  // mov eax, value
  constexpr unsigned char kReturn = 0xc3;
  unsigned char* const code = piece.written + place;
  code[0] = kMove;
  std::memcpy(code + 1, &value, sizeof value);
  code[1 + sizeof value] = kReturn;
  using Function = std::uint32_t (*)();
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): it is code.
  return reinterpret_cast<Function>(reinterpret_cast<std::uintptr_t>(piece.run + place))();
}

}  // namespace

int main(int argc, char** argv) {
  const long rounds = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 1;
  const int memory = called(::memfd_create("doublemapper", MFD_CLOEXEC), "memfd_create");
  called(::ftruncate(memory, kSize), "ftruncate");
  std::vector<Piece> pieces;
  for (std::size_t number = 0; number < kPieces; ++number) {
    pieces.push_back(map_piece(memory, number));
  }
  check::Random random(3);
  std::uint64_t total = 0;
  for (long round = 0; round < rounds; ++round) {
    for (int i = 0; i < kRoundsEach; ++i) {
      const std::size_t place = random.below(kPiecePages * kPage / 16) * 16;
      const auto value = static_cast<std::uint32_t>(random.next());
      total = total * 31 + make_and_call(pieces[random.below(kPieces)], place, value);
    }
    if (round % 10 == 0) {
      check::say((std::to_string(round) + " " + std::to_string(total) + "\n").c_str());
    }
  }
  check::say((std::to_string(total) + "\n").c_str());
  return 0;
}
