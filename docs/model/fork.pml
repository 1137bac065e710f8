/* Copies of one process that run on other hosts (docs/decisions/0065), for SPIN.
 *
 * move.pml is one move with all that can befall it; here a move is so much of it as whoever makes
 * copies sees, and there are several at once. The process writes its one page once, after which a copy
 * that reads it from anywhere but the snapshot would be wrong.
 */

#ifndef CHILDREN
#define CHILDREN 3
#endif
#ifndef CRASHES
#define CRASHES 3 /* of whoever makes the copies, and of workers at both hosts, together */
#endif

/* MISTAKE=number in the environment of the verifier plants one, so that the tests see it found:
 * a copy that is frozen goes on when its tracer dies; the record does not say that it starts elsewhere,
 * so that a new worker lets it run; pages are read from the process, which runs on; one deputy serves
 * all copies, and gives back what one of them has; with one copy that fails its siblings end. */
#define LIVES_ON 1
#define COMES_BACK 2
#define NO_SNAPSHOT 3
#define ONE_DEPUTY 4
#define ENDS_ALL 5
c_decl { \#include <stdlib.h> };
byte mistake = 0;

mtype = {
  /* the process */
  RUNS, HELD, GONE,
  /* a copy at home: TRACED by its maker and ends with it; STOPPED by job control; FROZEN by its worker and
   * ends with it (PTRACE_O_EXITKILL); then as in move.pml. HOME_RUNS must never be. */
  NONE, TRACED, STOPPED, FROZEN, PARKED, DEPUTY, ENDED, HOME_RUNS,
  /* the same copy at the destination */
  NOTHING, ARMED, THERE_RUNS, THERE_ENDED, LOST,
  /* its worker */
  NO_WORKER, WAITS, MOVES, SENT, SERVES
}

mtype process = RUNS;
bool version = false;          /* of its page */
bool maker = true;             /* the daemon's process that makes the copies */
bool taken = false;            /* it has made a snapshot, or will not */
bool snapshot = false;
bool snapshot_version = false;

mtype child[CHILDREN] = NONE;
mtype there[CHILDREN] = NOTHING;
mtype worker[CHILDREN] = NO_WORKER;
bool go[CHILDREN] = false;     /* the maker has let go of it, and said so */
bool noted[CHILDREN] = false;  /* in its record: it starts elsewhere */
bool run_sent[CHILDREN] = false;    /* Run was sent */
bool page_here[CHILDREN] = false;
bool page_there[CHILDREN] = false;
bool read_version[CHILDREN] = false;
bool excused[CHILDREN] = false; /* something befell this one */

byte crashes = CRASHES;

/* It does not run: it fails by itself, or its maker or worker ends it. */
inline end_child(i) {
  child[i] = ENDED;
  excused[i] = true;
  if
  :: mistake == ENDS_ALL ->
       for (sibling : 0 .. CHILDREN - 1) {
         child[sibling] = (child[sibling] == NONE -> NONE : ENDED)
       }
  :: else
  fi
}

proctype Maker() {
end:
  do
  :: atomic { maker && !taken && process == RUNS -> process = HELD }
  :: atomic { maker && !taken && process == HELD ->
       snapshot = true; snapshot_version = version; taken = true; process = RUNS }
  od
}

/* The same, of one copy. */
proctype Making(byte i) {
  byte sibling;
end:
  do
  :: atomic { snapshot && child[i] == NONE -> child[i] = TRACED; worker[i] = WAITS;
       page_here[i] = true }
  :: atomic { maker && child[i] == TRACED -> child[i] = STOPPED }
  :: atomic { maker && child[i] == STOPPED && !go[i] -> go[i] = true }
  /* It hears that the worker has died, and not that Run was sent. */
  :: atomic { maker && go[i] && (child[i] == STOPPED || child[i] == PARKED) &&
              worker[i] == NO_WORKER && !run_sent[i] -> end_child(i) }
  od
}

/* The process runs on: it writes, and may end before its copies do. */
proctype Process() {
end:
  do
  :: atomic { process == RUNS && !version -> version = true }
  :: atomic { process == RUNS && taken -> process = GONE }
  od
}

proctype Worker(byte i) {
  byte sibling;
end:
  do
  :: atomic { worker[i] == WAITS && go[i] -> noted[i] = true; worker[i] = MOVES }
  :: atomic { worker[i] == WAITS && !go[i] && !maker -> end_child(i); worker[i] = NO_WORKER }
  :: atomic { worker[i] == MOVES && child[i] == STOPPED -> child[i] = FROZEN }
  :: atomic { worker[i] == MOVES && child[i] == FROZEN && there[i] == NOTHING -> there[i] = ARMED }
  :: atomic { worker[i] == MOVES && child[i] == FROZEN && there[i] == ARMED -> child[i] = PARKED }
  :: atomic { worker[i] == MOVES && child[i] == PARKED && there[i] == ARMED ->
       run_sent[i] = true; worker[i] = SENT }
  /* It fails before Run: it is thawed, into its stop, and ended; or ended where it is parked. */
  :: atomic { worker[i] == MOVES && (child[i] == STOPPED || child[i] == FROZEN ||
                                     child[i] == PARKED) ->
       there[i] = (there[i] == ARMED -> NOTHING : there[i]);
       end_child(i); worker[i] = NO_WORKER }
  :: atomic { worker[i] == MOVES && child[i] == ENDED -> worker[i] = NO_WORKER }
  :: atomic { worker[i] == SENT && there[i] == THERE_RUNS && child[i] == PARKED ->
       child[i] = DEPUTY; worker[i] = SERVES }
  :: atomic { worker[i] == SENT && there[i] == NOTHING && child[i] == PARKED ->
       if
       :: mistake == COMES_BACK -> child[i] = HOME_RUNS
       :: else -> end_child(i)
       fi;
       worker[i] = NO_WORKER }
  :: atomic { worker[i] == SERVES && there[i] == THERE_RUNS && page_here[i] && !page_there[i] ->
       page_there[i] = true;
       read_version[i] = (mistake == NO_SNAPSHOT -> version : snapshot_version);
       page_here[i] = false;
       if
       :: mistake == ONE_DEPUTY ->
            for (sibling : 0 .. CHILDREN - 1) { page_here[sibling] = false }
       :: else
       fi }
  :: atomic { (worker[i] == SERVES || worker[i] == SENT) &&
              (there[i] == THERE_ENDED || there[i] == LOST) ->
       child[i] = ENDED; worker[i] = NO_WORKER }
  /* Its deputy was killed: so is it, wherever it runs. */
  :: atomic { worker[i] == SENT && child[i] == ENDED ->
       there[i] = THERE_ENDED; worker[i] = NO_WORKER }
  od
}

/* A new worker, by the record of the last one. */
proctype Daemon(byte i) {
  byte sibling;
end:
  do
  :: atomic { worker[i] == NO_WORKER && noted[i] && child[i] == PARKED -> worker[i] = SENT }
  :: atomic { worker[i] == NO_WORKER && noted[i] && child[i] == DEPUTY -> worker[i] = SERVES }
  :: atomic { worker[i] == NO_WORKER && noted[i] && child[i] == STOPPED ->
       if
       :: mistake == COMES_BACK -> child[i] = HOME_RUNS
       :: else -> end_child(i)
       fi }
  :: atomic { worker[i] == NO_WORKER && noted[i] && child[i] == ENDED && there[i] == THERE_RUNS ->
       there[i] = THERE_ENDED }
  od
}

proctype Destination(byte i) {
end:
  do
  :: atomic { there[i] == ARMED && run_sent[i] -> there[i] = THERE_RUNS }
  :: atomic { there[i] == ARMED && !run_sent[i] && worker[i] != MOVES -> there[i] = NOTHING }
  :: atomic { there[i] == THERE_RUNS && page_there[i] -> there[i] = THERE_ENDED }
  od
}

proctype Crashes() {
  byte i;
end:
  do
  :: atomic { crashes > 0 && maker -> crashes--; maker = false; taken = true; snapshot = false;
       process = (process == HELD -> RUNS : process);
       for (i : 0 .. CHILDREN - 1) {
         if
         :: child[i] == TRACED -> child[i] = ENDED; excused[i] = true
         :: else
         fi
       } }
  :: atomic { crashes > 0 -> crashes = 0 }
  od
}

proctype CrashesOf(byte i) {
end:
  do
  :: atomic { crashes > 0 && worker[i] != NO_WORKER -> crashes--;
       worker[i] = NO_WORKER; excused[i] = true;
       if
       :: child[i] == FROZEN && mistake == LIVES_ON -> child[i] = HOME_RUNS
       :: child[i] == FROZEN && mistake != LIVES_ON -> child[i] = ENDED
       :: else
       fi }
  :: atomic { crashes > 0 && there[i] == ARMED -> crashes--; there[i] = NOTHING; excused[i] = true }
  :: atomic { crashes > 0 && there[i] == THERE_RUNS -> crashes--; there[i] = LOST;
       excused[i] = true }
  od
}

/* Where nothing moves. A copy whose maker and worker both died before it had a record stays stopped. */
#define at_rest(i) \
  (child[i] == NONE || child[i] == ENDED || (child[i] == STOPPED && !noted[i] && !maker))

proctype Properties(byte i) {
end:
  do
  :: atomic { child[i] == HOME_RUNS -> assert(false) }               /* elsewhere or nowhere */
  :: atomic { page_there[i] && read_version[i] != snapshot_version -> assert(false) } /* as it was */
  :: atomic { there[i] == THERE_RUNS && !page_here[i] && !page_there[i] ->
       assert(false) }                                                    /* a page nobody holds */
  :: atomic { child[i] == ENDED && !excused[i] && there[i] != THERE_ENDED ->
       assert(false) }                                                   /* a sibling is harmed */
  :: atomic { process == HELD && !maker -> assert(false) }            /* the process is harmed */
  :: atomic { timeout && (process == HELD || !at_rest(i)) -> assert(false) }           /* stuck */
  od
}

init {
  byte i;
  atomic {
    c_code { if (getenv("MISTAKE")) { now.mistake = atoi(getenv("MISTAKE")); } };
    run Maker();
    run Process();
    run Crashes();
    for (i : 0 .. CHILDREN - 1) {
      run Making(i);
      run Worker(i);
      run Daemon(i);
      run Destination(i);
      run CrashesOf(i);
      run Properties(i)
    }
  }
}
