# frozen_string_literal: true

# Makes Sidekiq's side of a workflow as safe as Python's: no crash of a Ruby
# worker loses, doubles or hurries a step.
#
# This one file is all of it. Copy it into the application and, in the
# initializer of the server, after whatever else adds middleware:
#
#   require "sidekiq/workflow"
#   require_relative "../../lib/sidekiq_flow_companion"
#
#   Sidekiq.configure_server do |config|
#     config.server_middleware { |chain| chain.add Sidekiq::Workflow::Middleware }
#     SidekiqFlow::Companion.configure(config)
#   end
#
# What then is different, and why:
#
#   Fetch     A job is moved into a hash `swf:inflight:HOST:PID:NONCE:QUEUE` and
#             stays there until it is done. The hash of a worker that has died
#             is put back by any live worker, of either language.
#   Outcome   A job that failed goes from flight to `retry` or `dead` in one
#             step; one that is done leaves flight, keeps its output, counts
#             down its barriers and pushes what follows in one step.
#   Promoter  A due job goes from `schedule` or `retry` to its queue in one step.
#
# The steps are Lua scripts, the very ones that Python sends (at the end of this
# file). Each takes the job out of flight first, so a script that was sent twice,
# or by a worker that was taken for dead, does nothing.
#
# For Sidekiq 7 and 8 on Redis 6.2 or newer, or Valkey. Where Sidekiq Pro's
# super_fetch is to stay, say `fetch: false`.
#
# With Python's RedisCallbackStorage, what remains of long chains is stored once:
# say `cfg.callback_storage = SidekiqFlow::CallbackStorage.new` to the gem.
#
# It is loaded where workflows are started, too (a web server): barriers then live
# for as long as the delays ahead, and not for the gem's one day.
#
# What it does not do: a workflow is still started by the gem, one command at a
# time. And an error of the application's own client middleware, while it is worked
# out what follows, is a failure of the job, which runs again.

require "digest/sha1"
require "digest/sha2"
require "json"
require "securerandom"
require "set"
require "sidekiq"
require "sidekiq/client"
require "sidekiq/job_retry"
require "sidekiq/job_util"
require "sidekiq/scheduled"

module SidekiqFlow
  # A job of a Python actor was taken by a Ruby process. An ordinary failure: it is
  # retried, and Python may be the one to take it then. (sidekiq_flow_registry.rb
  # has the same.)
  class WrongQueue < StandardError
    def self.for(job, queue)
      new("This Ruby process takes from queue #{queue.inspect}, and job #{job["jid"]} is one of the Python actor #{job["wrapped"].inspect}. " \
        "One queue, one language: give the actor a queue_name of its own, or take #{queue.inspect} from this process.")
    end
  end
end

module SidekiqFlow::Companion
  # Sidekiq's 25 retries take 21 days, in seconds: a barrier outlives them.
  RETRY_HORIZON = 21 * 86_400

  # Redis refuses a ttl whose end it cannot count.
  MAX_TTL = 1000 * 365 * 86_400

  # A barrier that has released is kept for a day, as the gem keeps it.
  RELEASED_TTL = 86_400

  # A job that has outlived so many workers within that time is a poison pill.
  MAX_RECOVERIES = 3
  RECOVERY_WINDOW = 72 * 3600

  # Keys of a payload that a finished step hands on to the next: tenant, locale,
  # time zone and trace. A name that ends in * stands for all that begin so.
  INHERITED = %w[
    cattr cattr_* locale tz traceparent tracestate baggage
    apartment acts_as_tenant multi_tenant
    trace_propagation_headers sentry_user x-datadog-*
  ].freeze

  # What Sidekiq's rules for failures do sums with, unseen.
  READ_BY_SIDEKIQ = {
    "backtrace" => ->(value) { value == true || value == false || value.is_a?(Integer) },
    "failed_at" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1e14) },
    # Sidekiq takes one off when a person presses "retry": -1 is common.
    "retry_count" => ->(value) { value.is_a?(Integer) && value.between?(-1_000_000, 1_000_000) },
    "retry_for" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1_000_000_000) },
    "retry_queue" => ->(value) { value.is_a?(String) },
    "wrapped" => ->(value) { value.is_a?(String) }
  }.freeze

  # The class of what is not a job and was wrapped to be buried.
  MALFORMED = "MalformedPayload"

  # Entries that a callback stack may have.
  MAX_ENTRIES = 1000

  UUID = /\A\h{8}(-\h{4}){3}-\h{12}\z/
  CONSTANT = /\A[A-Z]\w*(::[A-Z]\w*)*\z/

  # The run cannot go on, and trying again could not help: the job goes to
  # `dead` under the name of the error, where a person can retry it.
  class Refused < StandardError; end

  class BarrierExpired < Refused; end

  class CallbacksMissing < Refused; end

  class CommandRefused < Refused; end

  class InvalidCallbacks < Refused; end

  class InvalidNode < Refused; end

  class InvalidPayload < Refused; end

  class MalformedPayload < InvalidPayload; end

  class OtherDialect < Refused; end

  class PoisonPill < Refused; end

  class PushStopped < Refused; end

  class StepDiscarded < Refused; end

  class StepSkipped < Refused; end

  class WrongType < Refused; end

  # Where the output of jobs is kept: KEY_PREFIX:RUN_ID, for +ttl+ seconds.
  Memory = Struct.new(:key_prefix, :ttl)

  # The gem was renamed sidekiq-sideline after 0.1.0, and its keys with it.
  Dialect = Struct.new(:name, :run_id, :callbacks, :memory_prefix) do
    def gem
      Sidekiq.const_get(name.capitalize)
    end

    def noop_class
      "Sidekiq::#{name.capitalize}::NoopWorker"
    end

    # Whether a job carries this dialect's keys.
    def of?(job)
      job.key?(run_id) || job.key?(callbacks)
    end
  end

  DIALECTS = [
    Dialect.new("workflow", "workflow_run_id", "workflow_completion_callbacks", "swf:mem"),
    Dialect.new("sideline", "sideline_run_id", "sideline_completion_callbacks", "sl:mem")
  ].freeze

  class << self
    # config             as Sidekiq.configure_server yields it
    # heartbeat_timeout  seconds without a beat after which a worker is dead;
    #                    the same on Python's side (heartbeat_timeout there is
    #                    in milliseconds)
    # memory             {key_prefix: "swf:mem", ttl: 86_400}, false for none;
    #                    by default the gem's own configuration.memory
    # inherit            keys of a payload that a finished step hands on to the
    #                    next, beside INHERITED; "x-*" for all that begin so
    # fetch, promote     false leaves Sidekiq's own in place
    def configure(config, heartbeat_timeout: 60, memory: nil, inherit: [], fetch: true, promote: true)
      @memory = memory
      @inherited = inherited_pattern([*INHERITED, *inherit])
      config.server_middleware do |chain|
        chain.insert_after(gem::Middleware, Output)
        chain.remove(gem::Middleware)
        # Outermost: what any other middleware raises is this job's failure.
        chain.prepend(Outcome)
      end
      require "sidekiq/manager"
      Sidekiq::Manager.prepend(SignOff)
      Sidekiq::Processor.prepend(Processing)
      Sidekiq::Scheduled::Poller.prepend(PatientPoller)
      configure_client(config)
      gem.singleton_class.prepend(Prolongation)
      config[:flow_worker] = Worker.new(config, heartbeat_timeout)
      config[:fetch_class] = Fetch if fetch
      config[:scheduled_enq] = Promoter if promote
      config.death_handlers << ->(job, error) { log_death(config, job, error) }
      config.on(:startup) do
        check_middleware(config)
        ActiveJobEvents.subscribe
      end

      # ---- Registry: tells Python of this application's job classes, where
      # ---- sidekiq_flow_registry.rb was required before.
      SidekiqFlow::Registry.publish_with(config) if defined?(SidekiqFlow::Registry)
    end

    # For whatever pushes jobs and starts workflows. Requiring this file does it
    # in a process that is not a server, and +configure+ in one that is.
    def configure_client(config)
      config.client_middleware { |chain| chain.prepend(Pushes) }
    end

    # Which of its two names the gem has here.
    def dialect
      @dialect ||= DIALECTS.fetch(defined?(Sidekiq::Sideline) ? 1 : 0)
    end

    # The one that it does not have.
    def other_dialect
      DIALECTS.find { |other| other != dialect }
    end

    def gem
      dialect.gem
    end

    def run_id(job)
      job[dialect.run_id]
    end

    # What a finished step hands on to the next.
    def inherited(job)
      @inherited ||= inherited_pattern(INHERITED)
      job.select { |key, _| key.match?(@inherited) }
    end

    # Read when it is first needed: the gem may be configured after this file.
    def memory
      return @resolved_memory if defined?(@resolved_memory)

      @resolved_memory = resolve_memory
    end

    # Where a job's run keeps what its jobs return; empty where nothing is kept.
    def memory_key(job)
      id = run_id(job)
      (memory && id.is_a?(String) && !id.empty?) ? "#{memory.key_prefix}:#{id}" : ""
    end

    # What a job's run needs in Redis, and for how many seconds from the moment
    # when the job goes on. What cannot be read keeps nothing alive, and keeps no
    # failed job from leaving flight.
    def needs(job)
      stack = Callback.stack(job)
      chains = CallbackStorage.chains(job[dialect.callbacks])
      keys = [*stack.flat_map(&:keys), memory_key(job), *chains].reject(&:empty?)
      [keys, [Plan.barrier_ttl(nil, stack), memory&.ttl || 0].max]
    rescue
      [[], RETRY_HORIZON]
    end

    # A time as this Sidekiq writes it: 7.x float seconds, 8.x milliseconds.
    def stamp(now = Time.now.to_f)
      (Sidekiq::VERSION.to_i >= 8) ? (now * 1000).floor : now
    end

    # Runs the block until the server answers. Only for what may be sent twice.
    # What the server refuses for good is raised as Refused.
    def patiently(logger)
      pause = 0.1
      begin
        yield
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        raise Trouble.refusal(error) unless Trouble.passes?(error)

        Trouble.say(logger, error)
        sleep(pause)
        pause = [2 * pause, 2].min
        retry
      end
    end

    # A job with what Sidekiq notes of a failure (job_retry.rb, process_retry).
    def failed(job, error, queue)
      message = error.message.to_s[0, 10_000]
      after = job.merge("queue" => job["retry_queue"] || queue, "error_message" => message.scrub,
        "error_class" => error.class.name.delete_prefix("#{name}::"))
      if after["retry_count"].is_a?(Integer)
        after.merge("retried_at" => stamp, "retry_count" => after["retry_count"] + 1)
      else
        after.merge("failed_at" => stamp, "retry_count" => 0)
      end
    end

    # What goes to `dead` for a payload that is not to run. What Sidekiq could not
    # push again is wrapped: `args` shows it, `raw` holds its bytes in base64.
    def corpse(raw, error, queue)
      raw = unwrapped(raw)
      job = parse(raw)
      return wrapped(raw, MalformedPayload.new("The payload is not a JSON object."), queue) if job.nil?
      return wrapped(raw, error, queue, job["jid"]) unless job["class"].is_a?(String) && job["args"].is_a?(Array)

      job["jid"] = fingerprint(raw) unless job["jid"].is_a?(String) && !job["jid"].empty?
      JSON.generate(failed(job, error, queue))
    rescue JSON::JSONError, EncodingError # Infinity, half of a surrogate pair
      wrapped(raw, error, queue)
    end

    # The JSON object of a payload, or nil.
    def parse(raw)
      text = raw.dup.force_encoding("UTF-8")
      return nil unless text.valid_encoding?

      job = JSON.parse(text)
      job if job.is_a?(Hash)
    rescue JSON::JSONError, EncodingError
      nil
    end

    # The error of a payload that Sidekiq must not be given, or nil: what its
    # Processor cannot read ends a thread, and the job would be taken for ever.
    def fault(raw)
      job = parse(raw)
      return MalformedPayload.new("The payload is not a JSON object.") if job.nil?
      # Ruby reads half of a surrogate pair, and 1e999, and cannot write them.
      return MalformedPayload.new("The payload holds what is not JSON.") if raw.match?(/\\u[dD]|[eE]\+?\d{3}|\d{300}/) && !writable?(job)
      return InvalidPayload.new("A job needs a class, not #{job["class"].inspect[0, 200]}.") unless job["class"].is_a?(String) && !job["class"].empty?
      return InvalidPayload.new("A job needs an array of args, not #{job["args"].inspect[0, 200]}.") unless job["args"].is_a?(Array)

      name, = READ_BY_SIDEKIQ.find { |field, readable| !job[field].nil? && !readable.call(job[field]) }
      InvalidPayload.new("The job's #{name} cannot be read: #{job[name].inspect[0, 200]}.") if name
    end

    # The bytes inside of what +corpse+ has wrapped; all others as they are.
    def unwrapped(raw)
      return raw unless raw.include?(MALFORMED)

      job = parse(raw)
      return raw unless job && job["class"] == MALFORMED && job["raw"].is_a?(String)

      unwrapped(job["raw"].unpack1("m0"))
    rescue ArgumentError # no base64
      raw
    end

    # An id for a payload without one: the same bytes are the same job.
    def fingerprint(raw)
      Digest::SHA1.hexdigest(raw)[0, 24]
    end

    # Tells the application's death handlers, this file's own among them.
    def bury_with_handlers(config, job, error)
      config[:death_handlers].each do |handler|
        handler.call(job, error)
      rescue => handler_error
        config.handle_exception(handler_error, {context: "Error calling death handler", job: job})
      end
    end

    private

    def inherited_pattern(names)
      /\A(?:#{names.map { |name| Regexp.escape(name.to_s).sub(/\\\*\z/, ".*") }.join("|")})\z/m
    end

    def wrapped(raw, error, queue, jid = nil)
      wrapper = {
        "class" => MALFORMED, "args" => [raw.dup.force_encoding("UTF-8").scrub[0, 1000]],
        "jid" => (jid.is_a?(String) && !jid.empty?) ? jid : fingerprint(raw),
        "queue" => queue, "retry" => 0, "created_at" => stamp, "raw" => [raw].pack("m0")
      }
      JSON.generate(failed(wrapper, error, queue))
    end

    def writable?(job)
      JSON.generate(job)
      true
    rescue JSON::JSONError, EncodingError
      false
    end

    def resolve_memory
      return nil if @memory == false
      return Memory.new(@memory.fetch(:key_prefix, dialect.memory_prefix), @memory.fetch(:ttl, 86_400)) if @memory

      of_gem = gem.configuration.memory
      return nil if of_gem.nil?

      prefix, ttl = %i[@key_prefix @ttl].map { |name| of_gem.instance_variable_get(name) }
      return Memory.new(prefix, Integer(ttl)) if prefix && ttl

      raise ArgumentError, "#{of_gem.class} is not a RedisHashMemory: say memory: {key_prefix: ..., ttl: ...} to #{name}.configure"
    end

    def log_death(config, job, error)
      run_id = run_id(job)
      return if run_id.nil?

      config.logger.error("Job #{job["jid"]} (#{(job["display_class"] || job["class"]).to_s[0, 255]}) of run #{run_id.to_s[0, 255]} is dead: #{error.class}. " \
        "The run waits; retrying the job resumes it.")
    end

    # Two that advance: the gem's would count each job down a second time.
    def check_middleware(config)
      chains = [config.server_middleware, *config.capsules.each_value.map(&:server_middleware)]
      return if chains.none? { |chain| chain.exists?(gem::Middleware) }

      raise "#{gem::Middleware} was added after #{name}.configure, which replaces it: call configure last"
    end
  end

  # What an error of Redis speaks of. Of the server (it cannot be reached, is no
  # master, is full, is busy, does not know us): then it is waited out, and nothing
  # is forgotten in between. Of the command: then trying again does not help.
  module Trouble
    CODES = "READONLY|LOADING|MASTERDOWN|NOREPLICAS|MISCONF|OOM|BUSY|TRYAGAIN|UNBLOCKED|CLUSTERDOWN|NOAUTH|WRONGPASS|NOPERM"

    # Before Redis 7, what goes wrong in a script stands behind words of its own.
    SERVER = /\A-?(?:ERR Error running script .*?: -?|EXECABORT .*?: -?)?(?:#{CODES})\b/m
    OTHERS = /max number of clients|ACL failure in script|user executing the script/

    # Seconds between two lines of the log.
    EVERY = 1

    module_function

    def passes?(error)
      case error
      when RedisClient::ConnectionError, ConnectionPool::TimeoutError then true
      when RedisClient::CommandError then error.message.match?(SERVER) || error.message.match?(OTHERS)
      else false
      end
    end

    # What the job is refused with, for an error that does not pass.
    def refusal(error)
      kind = error.message.match?(/\bWRONGTYPE\b/) ? WrongType : CommandRefused
      kind.new("Redis refused a command: #{error.message}")
    end

    # Says so once, however many threads wait.
    def say(logger, error)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      return if @said && now - @said < EVERY

      @said = now
      logger.warn("Redis cannot do it now, trying again: #{error.class}: #{error.message}")
    end
  end

  # The Lua scripts, sent by their SHA as Python sends them.
  module Scripts
    # This very file, behind the line that ends its Ruby.
    parts = File.read(__FILE__, encoding: "UTF-8").split(/^__END__\n/, 2).last.split(/^-- @file (\w+)\.lua\n/)
    SOURCES = parts.drop(1).each_slice(2).to_h.freeze
    SHAS = SOURCES.transform_values { |source| Digest::SHA1.hexdigest(source) }.freeze

    # +conn+ is what config.redis yields; it gives the script's reply.
    def self.run(conn, name, keys, arguments)
      conn.call("EVALSHA", SHAS.fetch(name), keys.size, *keys, *arguments)
    rescue RedisClient::CommandError => error
      raise unless error.message.start_with?("NOSCRIPT")

      conn.call("EVAL", SOURCES.fetch(name), keys.size, *keys, *arguments)
    end
  end

  # Fan-outs that are too large for one script: staged as a list to which no run
  # refers yet, made part of the run by the script that advances it, then poured
  # into the queues a part at a time. After a crash any process pours what is left.
  module Fanouts
    FANOUTS = "swf:fanouts"

    # Elements and bytes of one part: what one script stages or pours.
    PART_ELEMENTS = 1000
    PART_BYTES = 1024 * 1024

    # Seconds after which a list that is not committed expires.
    STAGE_TTL = 3600

    # Those that wait, since a key is of another type; each is logged once.
    WAITING = Set.new

    class << self
      def key(id)
        "swf:fanout:#{id}"
      end

      # Stages a list of elements (see stage.lua); its ID.
      def stage(conn, elements)
        id = SecureRandom.hex(12)
        length = 0
        parts(elements).each do |part|
          Scripts.run(conn, "stage", [key(id), FANOUTS], [STAGE_TTL, id, length, *part])
          length += part.size
        end
        id
      end

      # Pushes all that is left of the fan-outs that are committed.
      def pour_all(conn, logger)
        ids = conn.call("ZRANGE", FANOUTS, 0, -1)
        ids.each { |id| pour(conn, logger, id) }
      end

      private

      def pour(conn, logger, id)
        loop do
          outcome, of = Scripts.run(conn, "pour", [FANOUTS, key(id), "queues", "schedule"], [id, PART_ELEMENTS, PART_BYTES])
          next if outcome == "MORE"
          return WAITING.delete(id) if outcome == "DONE"

          logger.error("The Redis key #{of.inspect} holds another type, so a fan-out waits. Remove it.") if WAITING.add?(id)
          return
        end
      end

      def parts(elements)
        found = [[]]
        size = 0
        elements.each do |element|
          if found.last.size == PART_ELEMENTS || size >= PART_BYTES
            found << []
            size = 0
          end
          found.last << element
          size += element.bytesize
        end
        found
      end
    end
  end

  # This process, as all other workers see it: the zset swf:workers holds one
  # member HOST:PID:NONCE:QUEUE for each of its queues, with its last beat. The
  # same beat says who has been silent for too long; whoever hears it first puts
  # the silent one's jobs back.
  class Worker
    include Sidekiq::Component

    WORKERS = "swf:workers"

    # The dead that one beat names, and how often it asks for more.
    PAGE = 16
    PAGES = 10

    # Seconds after which a suspect that still runs keeps no other back.
    TRIAL_TIME = 60

    def self.in_flight(member)
      "swf:inflight:#{member}"
    end

    def initialize(config, timeout)
      @config = config
      @timeout = Float(timeout)
      @interval = [10.0, @timeout / 5].min
      @lock = Mutex.new
      @wake = ConditionVariable.new
      @members = Set.new
      @fetchers = Set.new
      @held = Set.new
      @fetches = 0
      @unanswered = Hash.new { |bases, queue| bases[queue] = [] }
      @open = Set.new
      @left = Set.new
      @suspects = Hash.new { |members, queue| members[queue] = [] }
      @troubled = Set.new
      @thread = nil
    end

    def member(queue)
      "#{hostname.tr(":", "-")}:#{::Process.pid}:#{process_nonce}:#{queue}"
    end

    # Begins to beat for the queues of a fetcher.
    def join(fetcher, queues)
      @lock.synchronize do
        @fetchers << fetcher
        @members.merge(queues.map { |queue| member(queue) })
        unless @thread&.alive?
          @running = true
          @thread = safe_thread("flow heartbeat") { beat_on }
        end
      end
      beat
    end

    # The last fetcher to leave takes the process off: nothing stays in flight.
    def leave(fetcher)
      members = @lock.synchronize do
        return unless @fetchers.delete?(fetcher) && @fetchers.empty?

        @running = false
        @wake.broadcast
        @members.to_a.tap { @members.clear }
      end
      @thread&.join
      members.each do |member|
        hand_back(member)
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        logger.warn("Jobs of #{member} in flight are left to be recovered by another worker: #{error.message}")
      end
    end

    # Yields the base of a receipt, which names one fetch of this process. One
    # whose reply did not come is used again, by whichever thread is next: the
    # script then gives back what it has moved.
    def with_base(queue)
      base = @lock.synchronize do
        (@unanswered[queue].pop || (@fetches += 1).to_s(16)).tap { |found| @open << found }
      end
      reply = yield base
    ensure
      if base
        @lock.synchronize do
          @unanswered[queue] << base if reply.nil?
          @open.delete(base)
        end
      end
    end

    # Dead workers that hold suspects of this queue: jobs that were at work in more
    # than one worker that died. Each is tried beside no other.
    def suspects(queue)
      @lock.synchronize { @suspects[queue].dup }
    end

    # Until a beat finds it again.
    def forget_suspects(queue, dead)
      @lock.synchronize { @suspects[queue].delete(dead) }
    end

    # {"TRIAL", payload}, in flight as BASE:1; {"WAIT"}, {"NONE"}.
    def try_suspect(queue, dead, base)
      own = member(queue)
      keys = [WORKERS, Worker.in_flight(dead), Worker.in_flight(own), "swf:trial:#{queue}", "paused"]
      reply = redis { |conn| Scripts.run(conn, "trial", keys, [dead, own, queue, @timeout.to_s, base, TRIAL_TIME]) }
      raise WrongType, "The Redis key #{reply[1].inspect} holds another type. Remove it." if reply[0] == "TYPE"
      return reply if reply[0] != "TRIAL"

      # From here on it counts, should this process die.
      begun = SidekiqFlow::Companion.patiently(logger) do
        redis { |conn| Scripts.run(conn, "begin", [Worker.in_flight(own)], ["#{base}:1?"]) }
      end
      (begun == 1) ? reply : ["NONE"]
    end

    # Whether a fetch from this queue has moved a job, perhaps, and nobody got it.
    def unanswered?(queue)
      @lock.synchronize { @unanswered[queue].any? }
    end

    def hold(unit)
      @lock.synchronize { @held << unit }
    end

    def release(unit)
      @lock.synchronize { @held.delete(unit) }
    end

    # For one that Redis can take nowhere: it stays in flight until the end.
    def leave_in_flight(unit)
      @lock.synchronize { @left << unit.receipt }
      release(unit)
    end

    def beat
      members = @lock.synchronize { @members.to_a }
      return if members.empty?

      held = @lock.synchronize { members.map { |member| @held.count { |unit| unit.member == member } } }
      stale, more, fanouts = redis { |conn| Scripts.run(conn, "beat", [WORKERS], [@timeout.to_s, 0, *members.zip(held).flatten]) }
      more.each { |member| reconcile(member) }
      recover_all(stale)
      redis { |conn| Fanouts.pour_all(conn, logger) } if fanouts == 1
    end

    private

    def beat_on
      loop do
        @lock.synchronize { @wake.wait(@lock, @interval) if @running }
        return unless @running

        begin
          beat
          put_back_abandoned
        rescue => error
          logger.warn("No heartbeat this time: #{error.message}")
        end
      end
    end

    # A thread that dies with a job in hand (not by an error of the job: Sidekiq
    # settles those) leaves it in flight of a process that lives.
    def put_back_abandoned
      abandoned = @lock.synchronize { @held.reject { |unit| unit.thread.alive? } }
      abandoned.each(&:requeue_now)
    end

    # A beat names so many of the dead; those that stay are passed over.
    def recover_all(stale)
      passed = 0
      @lock.synchronize { @suspects.clear }
      PAGES.times do
        passed += stale.count { |member| !recover_in_guard(member) }
        break if stale.size < PAGE

        stale, = redis { |conn| Scripts.run(conn, "beat", [WORKERS], [@timeout.to_s, passed]) }
      end
    end

    # One record at a time: one that cannot be read is in no other's way. True
    # where nothing of it is left.
    def recover_in_guard(member)
      return strike_off(member) unless readable?(member)

      recover(member).tap { @troubled.delete(member) }
    rescue => error
      raise if Trouble.passes?(error)

      logger.error("Worker #{member} is dead, and its jobs cannot be put back: #{error.message}") if @troubled.add?(member)
      false
    end

    # What is in flight here and in no thread's hands (a fetch that was delivered
    # late) goes back.
    def reconcile(member)
      receipts = redis { |conn| conn.call("HKEYS", Worker.in_flight(member)) }
      unknown = @lock.synchronize do
        known = [*@held.map(&:receipt), *@left]
        bases = [*@open, *@unanswered.each_value.flat_map(&:itself)]
        (receipts - known).reject { |receipt| suspect?(receipt) || bases.include?(receipt.b[/\A\h+(?=:)/n]) }
      end
      return if unknown.empty?

      redis { |conn| Scripts.run(conn, "requeue", [Worker.in_flight(member), "queue:#{queue_of(member)}"], unknown) }
      logger.warn("Put back #{unknown.size} jobs of queue #{queue_of(member)} that were in flight here and in no thread's hands.")
    rescue RedisClient::CommandError => error
      raise if Trouble.passes?(error)

      logger.error("What is in flight of #{member} cannot be compared: #{error.message}") if @troubled.add?(member)
    end

    # HOST:PID:NONCE:QUEUE. Nothing can be in flight under another name.
    def readable?(member)
      member.valid_encoding? && member.split(":", 4).size == 4
    end

    def strike_off(member)
      redis { |conn| conn.call("ZREM", WORKERS, member) }
      logger.error("Took out of #{WORKERS} what is not a worker: #{member.inspect[0, 200]}")
      true
    end

    def recover(member)
      queue = queue_of(member)
      error = PoisonPill.new("The job had begun when its worker died, #{MAX_RECOVERIES} times within " \
        "#{RECOVERY_WINDOW / 3600} hours. Look for what kills the process, then retry it.")
      waiting, jobs = in_flight(member).partition { |receipt, _| suspect?(receipt) }
      # What is pushed last is taken next.
      slices = jobs.sort_by { |receipt, _| receipt.b.split(":").map { |part| part.to_i(16) } }.reverse.each_slice(100).to_a
      slices = [[]] if slices.empty? # strikes the member off
      counts = [0, 0, 0]
      slices.each do |slice|
        orphans = slice.map { |receipt, raw| [receipt, jid(raw), SidekiqFlow::Companion.corpse(raw, error, queue)] }
        reply = recover_script(member, orphans, @timeout)
        raise WrongType, "The Redis key #{reply[1].inspect} holds another type. Remove it." if reply[0] == "TYPE"
        return false if reply[0] != "DONE"

        counts = counts.zip(reply[1, 3]).map(&:sum)
        keep(reply[4].map { |number| slice[number - 1].last })
        raise WrongType, "The Redis key \"dead\" is not a sorted set. Remove it." unless reply[5].empty?
      end
      alone = waiting.any? || counts[2] > 0
      @lock.synchronize { @suspects[queue] << member } if alone
      return !alone if counts.sum.zero?

      logger.warn("Worker #{member} is dead: #{counts[0]} of its jobs are back in queue #{queue}, #{counts[1]} are dead, #{counts[2]} run alone next.")
      !alone
    end

    # Dead jobs may be retried for as long as `dead` keeps them.
    def keep(payloads)
      payloads.each do |raw|
        keys, ttl = SidekiqFlow::Companion.needs(SidekiqFlow::Companion.parse(raw) || {})
        ttl += config[:dead_timeout_in_seconds]
        redis { |conn| Scripts.run(conn, "extend", ["", *keys], [ttl, 0]) } unless keys.empty?
      end
    end

    def recover_script(member, orphans, timeout)
      keys = [WORKERS, Worker.in_flight(member), "queue:#{queue_of(member)}", "dead"]
      keys.concat(orphans.map { |_, jid, _| "swf:recovered:#{jid}" })
      arguments = [member, timeout.to_s, MAX_RECOVERIES, RECOVERY_WINDOW, Time.now.to_f.to_s]
      arguments.concat(orphans.flat_map { |receipt, _, corpse| [receipt, corpse] })
      redis { |conn| Scripts.run(conn, "recover", keys, arguments) }
    end

    # Marked when this process was taken for dead; it waits for its trial.
    def suspect?(receipt)
      receipt.end_with?("!")
    end

    def queue_of(member)
      member.split(":", 4).fetch(3)
    end

    def jid(raw)
      id = SidekiqFlow::Companion.parse(raw)&.fetch("jid", nil)
      (id.is_a?(String) && !id.empty?) ? id : SidekiqFlow::Companion.fingerprint(raw)
    end

    def in_flight(member)
      fields = redis { |conn| conn.call("HGETALL", Worker.in_flight(member)) }
      fields.is_a?(Array) ? fields.each_slice(2).to_h : fields
    end

    # Threads that still work finish into nothing: their jobs run again
    # elsewhere, as after any hard shutdown of Sidekiq.
    def hand_back(member)
      3.times do
        receipts = in_flight(member).keys.reject { |receipt| suspect?(receipt) }.sort_by { |receipt| receipt.to_i(16) }
        unless receipts.empty?
          redis { |conn| Scripts.run(conn, "requeue", [Worker.in_flight(member), "queue:#{queue_of(member)}"], receipts) }
        end
        # Strikes the member off, unless a thread has just fetched once more.
        recover_script(member, [], 0)
        return if redis { |conn| conn.call("ZSCORE", WORKERS, member) }.nil?
      end
    end
  end

  # Takes jobs from the queues into flight; Sidekiq's own way to plug that in.
  class Fetch
    include Sidekiq::Component

    # Seconds until a thread looks whether the process is to stop, and until one
    # looks again when there are more queues than threads to watch them.
    TIMEOUT = 2
    BRIEF = 0.2

    # Seconds until a queue that is not a list is looked at again.
    SHUN = 10

    attr_reader :worker, :retrier

    def initialize(capsule)
      @config = capsule
      @worker = capsule[:flow_worker]
      @retrier = Retry.new(capsule)
      @queues = capsule.queues.dup
      @strict = capsule.mode == :strict
      @lock = Mutex.new
      @watched = Set.new
      @left = ConditionVariable.new
      @shunned = {}
      @joined = false
    end

    def retrieve_work
      Unit.fetched = nil
      join unless @joined
      order = (@strict ? @queues : @queues.shuffle).uniq.reject { |queue| shunned?(queue) }
      if order.empty? # all of them paused, or no lists
        sleep(TIMEOUT)
        return nil
      end
      order.each do |queue|
        unit = shunning(queue) { suspect(queue) }
        return Unit.fetched = unit if unit
      end
      candidates = (order.size > 2) ? filled(order) : order
      candidates.each do |queue|
        unit = shunning(queue) { fetch(queue) }
        return Unit.fetched = unit if unit
      end
      watch(order) if candidates.size == order.size || candidates.empty?
      nil
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      raise unless Trouble.passes?(error)

      # Sidekiq would write the backtrace of each thread.
      Trouble.say(logger, error)
      sleep(1)
      nil
    end

    # Sidekiq's Manager at the end: the jobs of threads that it will kill.
    def bulk_requeue(units)
      return if units.empty?

      units.each(&:requeue_now)
      logger.info("Put #{units.size} jobs back")
    rescue => error
      logger.warn("Could not put #{units.size} jobs back, another worker will: #{error.message}")
    end

    # When the Manager of this capsule has stopped.
    def sign_off
      worker.leave(self)
    rescue => error
      logger.warn("Could not sign off, another worker will find out: #{error.message}")
    end

    private

    def join
      worker.join(self, @queues.uniq)
      @joined = true
    end

    # One at a time, as Sidekiq's own: a thread holds what it works on.
    def fetch(queue)
      member = worker.member(queue)
      keys = ["queue:#{queue}", Worker.in_flight(member), Worker::WORKERS]
      worker.with_base(queue) do |base|
        reply = redis { |conn| Scripts.run(conn, "fetch", keys, [member, base, 1, 1, "", 0]) }
        raise WrongType, "The Redis key #{reply[1].inspect} holds another type. Remove it." if reply && reply[0] == "TYPE"

        if reply.nil?
          logger.warn("This worker was taken for dead; it goes on under the same name.")
          worker.beat
          return nil
        end
        reply[0].empty? ? false : runnable(Unit.new(self, queue, member, "#{base}:1", reply[1]))
      end
    end

    # A suspect of a dead worker, where one waits and no other is tried.
    def suspect(queue)
      trials = "trial of #{queue}"
      members = worker.suspects(queue)
      members = [""] if members.empty? && worker.unanswered?(trials)
      members.each do |dead|
        unit = worker.with_base(trials) do |base|
          kind, payload = worker.try_suspect(queue, dead, base)
          worker.forget_suspects(queue, dead) if kind != "TRIAL"
          (kind == "TRIAL") ? runnable(Unit.new(self, queue, worker.member(queue), "#{base}:1", payload)) : false
        end
        return unit if unit
      end
      nil
    end

    # False for one that is not to run: it is in `dead`.
    def runnable(unit)
      error = SidekiqFlow::Companion.fault(unit.job)
      return unit if error.nil?

      unit.bury(error)
      false
    end

    # A queue that is not a list stops no other queue, and fills no log.
    def shunning(queue)
      yield
    rescue RedisClient::CommandError, WrongType => error
      raise if Trouble.passes?(error)

      logger.error("Queue #{queue} cannot be read, and is left alone for #{SHUN} seconds: #{error.message}")
      @lock.synchronize { @shunned[queue] = now + SHUN }
      nil
    end

    def shunned?(queue)
      @lock.synchronize { @shunned[queue]&.then { |until_then| now < until_then } }
    end

    def now
      ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
    end

    # The queues that hold something, in the same order; one round trip.
    def filled(order)
      lengths = redis { |conn| conn.pipelined { |pipeline| order.each { |queue| pipeline.call("LLEN", "queue:#{queue}") } } }
      order.zip(lengths).select { |queue, length| length > 0 || worker.unanswered?(queue) }.map(&:first)
    rescue RedisClient::CommandError
      order # one of them is not a list: each is asked for itself
    end

    # Blocks until a queue holds something, and leaves it as it was: BLMOVE of a
    # list's end onto itself, so the job has no second place where a crash could
    # leave it. One thread watches one queue; the next takes its place when it
    # has found something.
    def watch(order)
      queue = @lock.synchronize do
        free = order.find { |name| !@watched.include?(name) }
        if free.nil?
          @left.wait(@lock, TIMEOUT)
          return
        end
        @watched << free
        free
      end
      seconds = (@watched.size == order.size) ? TIMEOUT : BRIEF
      key = "queue:#{queue}"
      shunning(queue) { redis { |conn| conn.blocking_call(seconds, "BLMOVE", key, key, "RIGHT", "RIGHT", seconds) } }
    ensure
      if queue
        @lock.synchronize do
          @watched.delete(queue)
          @left.signal
        end
      end
    end
  end

  # The end of a capsule. Sidekiq 7 ends with an empty list for the fetcher, and
  # Sidekiq 8.1.3 and later with nothing at all.
  module SignOff
    def stop(*)
      super
    ensure
      capsule.fetcher.sign_off if capsule.fetcher.is_a?(Fetch)
    end
  end

  # A job in flight; what Sidekiq calls a unit of work. It leaves flight once:
  # by an advance, a failure, a requeue or, where none of them came first, by
  # Sidekiq's acknowledge.
  class Unit
    FETCHED = :flow_fetched
    CURRENT = :flow_current

    class << self
      # What the fetcher has given to this thread, until its middleware takes it.
      def fetched=(unit)
        Thread.current[FETCHED] = unit
      end

      def fetched
        Thread.current[FETCHED]
      end

      def take
        Thread.current[FETCHED].tap { Thread.current[FETCHED] = nil }
      end

      # The unit whose middleware runs on this thread; nil for a job that another
      # one performs inline.
      def current
        Thread.current[CURRENT]
      end

      def with(unit)
        before = current
        Thread.current[CURRENT] = unit
        yield
      ensure
        Thread.current[CURRENT] = before
      end
    end

    # +queue_name+ and +job+ (the payload, as it stood in Redis) are read by
    # Sidekiq's Processor.
    attr_reader :queue_name, :job, :receipt, :member, :thread

    # The job's Completion, once it was done.
    attr_accessor :completion

    def initialize(fetcher, queue, member, receipt, payload)
      @fetcher = fetcher
      @queue_name = queue
      @member = member
      @receipt = receipt
      @job = SidekiqFlow::Companion.unwrapped(payload)
      @thread = Thread.current
      @settled = false
      worker.hold(self)
    end

    def queue
      "queue:#{queue_name}"
    end

    def key
      Worker.in_flight(@member)
    end

    def config
      @fetcher.config
    end

    def retrier
      @fetcher.retrier
    end

    # Sidekiq calls this when it has nothing more to do with the job, whatever
    # became of it. Most have left flight by then.
    #
    # What has not: plain jobs that are done, jobs that are discarded, and steps
    # that were pushed again. Those are in their queue first and leave flight
    # second: a crash between the two runs such a step twice, under the same jid,
    # which a barrier counts once.
    def acknowledge
      settle { |conn| conn.call("HDEL", key, receipt) }
    end

    # To the end of the queue that is taken from next.
    def requeue
      settle { |conn| Scripts.run(conn, "requeue", [key, queue], [receipt]) }
    end

    # The same, where there is no time to wait for the server.
    def requeue_now
      return if @settled

      config.redis { |conn| Scripts.run(conn, "requeue", [key, queue], [receipt]) }
      settled
    rescue RedisClient::CommandError => error
      raise if Trouble.passes?(error)

      leave(error)
    end

    def settled?
      @settled
    end

    # Runs advance.lua; gives its reply.
    def advance(keys, arguments)
      reply = config.redis { |conn| Scripts.run(conn, "advance", [key, *keys], [receipt, *arguments]) }
      settled if %w[DONE GONE].include?(reply[0])
      config.logger.debug { "A job had left flight: sent twice, or recovered elsewhere" } if reply[0] == "GONE"
      reply
    end

    # From flight to `retry` or `dead`, and the barriers above the job, and the
    # memory of its run, live on for as long as it may be tried again.
    def fail(set, score, payload)
      now = Time.now.to_f
      dead_for = config[:dead_timeout_in_seconds]
      needed, ttl = SidekiqFlow::Companion.needs(SidekiqFlow::Companion.parse(payload) || {})
      ttl += ((set == "dead") ? dead_for : score.to_f - now).to_i
      keys = [key, set, *needed]
      arguments = [receipt, set, score, payload, (now - dead_for).to_s, config[:dead_max_jobs], ttl]
      reply = SidekiqFlow::Companion.patiently(config.logger) do
        config.redis { |conn| Scripts.run(conn, "fail", keys, arguments) }
      end
      raise WrongType, "The Redis key #{reply[1].inspect} is not a sorted set. Remove it." if reply[0] == "TYPE"

      settled
    rescue Refused => error
      leave(error)
    end

    # Dead at once, whatever `retry` says; +tell+ the death handlers.
    def bury(error, tell: true)
      job = SidekiqFlow::Companion.parse(self.job)
      config.logger.error("Job #{job && job["jid"]} of queue #{queue_name} cannot go on, and goes to 'dead': #{error.message}")
      self.fail("dead", Time.now.to_f.to_s, SidekiqFlow::Companion.corpse(self.job, error, queue_name))
      SidekiqFlow::Companion.bury_with_handlers(config, job, error) if tell && job && !error.is_a?(InvalidPayload)
    end

    private

    def worker
      @fetcher.worker
    end

    def settle
      return if @settled

      SidekiqFlow::Companion.patiently(config.logger) { config.redis { |conn| yield conn } }
      settled
    rescue Refused => error
      leave(error)
    end

    # Redis can take the job nowhere. In flight it is not lost: it goes back to its
    # queue when this process ends.
    def leave(error)
      config.logger.error("Job of queue #{queue_name} with receipt #{receipt} stays in #{key}: #{error.message}")
      @settled = true
      worker.leave_in_flight(self)
    end

    def settled
      @settled = true
      worker.release(self)
    end
  end

  # A job that came by another way than Fetch: Sidekiq Pro's super_fetch, or
  # performed inline. It is put into flight for the moment of its advance.
  class BorrowedUnit
    attr_reader :config, :queue_name, :job

    def initialize(config, queue_name, job)
      @config = config
      @queue_name = queue_name
      @job = Sidekiq.dump_json(job)
      @key = "swf:borrowed:#{SecureRandom.hex(12)}"
      SidekiqFlow::Companion.patiently(config.logger) do
        config.redis do |conn|
          conn.multi do |transaction|
            transaction.call("HSET", @key, "1", @job)
            transaction.call("EXPIRE", @key, 3600)
          end
        end
      end
    end

    def advance(keys, arguments)
      config.redis { |conn| Scripts.run(conn, "advance", [@key, *keys], ["1", *arguments]) }
    end
  end

  # Sidekiq's own rules for what becomes of a job that failed. Only the writing
  # is another's: one script in place of ZADD and a later acknowledge.
  #
  # A step of a run is never dropped: what `retry: false`, `dead: false` or a
  # `:discard` of the application would throw away goes to `dead`, for its run
  # waits for it.
  class Retry < Sidekiq::JobRetry
    # The failure of a job that did not come to its middleware: a class that does
    # not exist, the Rails reloader.
    def global(payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled => handled
      unit = Unit.fetched
      unit.bury(handled.cause, tell: false) if unit && handled.cause && !unit.settled? && step?(payload)
      raise
    end

    # What Sidekiq raises again is a job without retries, or one whose failure it
    # could not write down.
    def local(job_instance, payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled, Sidekiq::Shutdown
      raise
    rescue Exception => error # as Sidekiq has it
      unit = Unit.current
      raise if unit.nil? || unit.settled? || !step?(payload)

      unit.bury(error)
      raise Sidekiq::JobRetry::Handled
    end

    private

    def process_retry(job_instance, job, queue, error)
      begin
        super
      rescue Sidekiq::JobRetry::Handled, Sidekiq::Shutdown
        raise
      rescue => broken
        raise if unit.nil?

        logger.error("The failure of job #{job["jid"]} cannot be noted as Sidekiq does: #{broken.class}: #{broken.message}")
        return unit.bury(error)
      end
      return if unit.nil? || unit.settled? || SidekiqFlow::Companion.run_id(job).nil?

      logger.error("Job #{job["jid"]} of run #{SidekiqFlow::Companion.run_id(job).to_s[0, 255]} failed for good and was to be dropped; it is a step, " \
        "and goes to 'dead': #{error.class}")
      unit.fail("dead", Time.now.to_f.to_s, Sidekiq.dump_json(job))
    end

    def step?(payload)
      job = SidekiqFlow::Companion.parse(payload)
      job && !SidekiqFlow::Companion.run_id(job).nil?
    end

    def unit
      Unit.current || Unit.fetched
    end

    def redis(&block)
      unit ? yield(FailureWriter.new(unit, config)) : super
    end
  end

  # Sidekiq's Processor with the rules above, also for jobs that fail before their
  # middleware.
  module Processing
    def initialize(capsule, ...)
      super
      @retrier = capsule.fetcher.retrier if capsule.fetcher.is_a?(Fetch)
    end
  end

  # Stands for the connection that JobRetry writes to.
  class FailureWriter
    def initialize(unit, config)
      @unit = unit
      @config = config
    end

    def multi
      yield self
    end

    def zadd(set, score, payload)
      @unit.fail(set, score, payload)
    end

    # The script trims `dead`.
    def zremrangebyscore(*)
    end

    def zremrangebyrank(*)
    end

    # A later Sidekiq that writes in another way still writes: in two steps.
    def method_missing(name, *arguments, &block)
      @config.redis { |conn| conn.public_send(name, *arguments, &block) }
    end

    def respond_to_missing?(*)
      true
    end
  end

  # The outermost server middleware: decides what becomes of the job, and does
  # it, in one step. Handled is Sidekiq's own word for "that is settled".
  #
  # It comes last, after every other middleware has ended: what follows must not
  # start before, say, one that wraps the job in a transaction has committed.
  class Outcome
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      unit = Unit.take
      Unit.with(unit) do
        return yield if unit.nil?

        unit.retrier.local(job_instance, unit.job, queue) do
          refusing(unit) do
            Execution.of(job) do |execution|
              Callback.stack(job).each { |callback| Plan.check(callback.remaining) if callback.remaining }
              yield.tap { finish(unit, execution) }
            end
          end
        end
      end
    end

    private

    def finish(unit, execution)
      return unit.completion.advance if unit.completion
      raise execution.refusal if execution.refusal
      return if execution.pushed_again? || SidekiqFlow::Companion.run_id(execution.job).nil?

      raise StepSkipped, "A middleware did not let the step run, so its run waits for it. Look for which one, then retry it."
    end

    # Whatever else is raised is tried again, by Sidekiq's rules.
    def refusing(unit)
      yield
    rescue Refused => error
      unit.bury(error)
      raise Sidekiq::JobRetry::Handled
    end
  end

  # A job that runs on this thread, and what is seen of it meanwhile.
  class Execution
    CURRENT = :flow_execution

    # What a job that is pushed again has of its own.
    OWN = %w[
      class wrapped args queue at created_at enqueued_at retry_count failed_at retried_at
      error_message error_class error_backtrace
    ].freeze

    class << self
      def current
        Thread.current[CURRENT]
      end

      # Yields that of a job; the one that is there already, if it is the job's.
      def of(job)
        before = current
        return yield(before) if before && before.job.equal?(job)

        begin
          yield(Thread.current[CURRENT] = new(job))
        ensure
          Thread.current[CURRENT] = before
        end
      end
    end

    attr_reader :job

    # Why the job is not done, though nothing was raised.
    attr_accessor :refusal

    def initialize(job)
      @job = job
    end

    # The job was pushed once more, under its own id: whoever performs that one
    # advances the run.
    def pushed_again!
      @pushed_again = true
    end

    def pushed_again?
      @pushed_again
    end

    # Whether a job that is being pushed is this one, once more.
    def same?(item)
      item["jid"] == @job["jid"] || (!active_job_id.nil? && active_job_id == id_of(item))
    end

    # ActiveJob's own id, which stays the same when it tries again.
    def active_job_id
      id_of(@job)
    end

    # Makes of a job that is pushed the step that this one is.
    def continue_in(item)
      pushed_again!
      item.merge!(@job.reject { |key, _| OWN.include?(key) }) unless SidekiqFlow::Companion.run_id(@job).nil?
    end

    private

    def id_of(job)
      return unless job["wrapped"] && job["args"].is_a?(Array)

      data = job["args"].first
      data["job_id"] if data.is_a?(Hash)
    end
  end

  # Client middleware. A step that is pushed again while it runs (ActiveJob's
  # retry_on is that, and an interrupted iteration) stays the step that it is. And
  # the barriers above whatever is pushed live until it is through its retries: the
  # gem makes them for a day, and a first step may be delayed for longer.
  class Pushes
    include Sidekiq::ClientMiddleware

    PLANNING = :flow_planning
    PROLONGED = :flow_prolonged

    # The pushes of a plan: its jobs are new, and its script makes the barriers.
    def self.planned
      before = Thread.current[PLANNING]
      Thread.current[PLANNING] = true
      yield
    ensure
      Thread.current[PLANNING] = before
    end

    def call(_job_class, job, _queue, redis_pool)
      return yield if Thread.current[PLANNING]

      execution = Execution.current
      execution.continue_in(job) if execution&.same?(job)
      prolong(job, redis_pool)
      yield
    end

    private

    # The children of a group have the same barriers: once is enough.
    def prolong(job, redis_pool)
      stack = job[SidekiqFlow::Companion.dialect.callbacks]
      return unless stack.is_a?(Array) && stack.any? && stack.all? { |entry| entry.is_a?(Array) && (entry[1].nil? || entry[1].is_a?(Hash)) }

      callbacks = stack.map { |entry| Callback.new(*entry.first(3)) }
      wait = job["at"].is_a?(Numeric) ? [0, job["at"] - Time.now.to_f].max.ceil : 0
      ttl = [Plan.barrier_ttl(nil, callbacks) + wait, MAX_TTL].min
      top, done = Thread.current[PROLONGED]
      return if top == callbacks.last.barrier && done >= ttl

      redis_pool.with { |conn| Scripts.run(conn, "extend", ["", *callbacks.flat_map(&:keys)], [ttl, 0]) }
      Thread.current[PROLONGED] = [callbacks.last.barrier, ttl]
    rescue => error
      # The push matters more: who pushes may have taken the job out of a set.
      Sidekiq.logger.warn("The barriers of job #{job["jid"]} could not be prolonged: #{error.class}: #{error.message}")
    end
  end

  # What ActiveJob does about an error (retry_on, discard_on) looks to Sidekiq like
  # a job that is done. It tells its subscribers.
  module ActiveJobEvents
    EVENTS = /\A(enqueue_retry|retry_stopped|discard|perform)\.active_job\z/

    module_function

    def subscribe
      return if @subscribed || !defined?(ActiveSupport::Notifications)

      @subscribed = true
      ActiveSupport::Notifications.subscribe(EVENTS) { |name, _, _, _, payload| seen(name.delete_suffix(".active_job"), payload) }
    end

    def seen(event, payload)
      execution = Execution.current
      # Another job may be performed inline.
      return unless execution && payload[:job]&.job_id == execution.active_job_id

      case event
      when "enqueue_retry" then execution.pushed_again!
      when "perform"
        execution.refusal ||= StepSkipped.new("A callback of ActiveJob aborted the step, so its run waits for it. Retry it.") if payload[:aborted]
      else
        execution.refusal = StepDiscarded.new("ActiveJob gave the step up (#{event}) after #{payload[:error].class}: " \
          "#{payload[:error]&.message}. Its run waits for it. Retry it when that is mended.")
      end
    end
  end

  # The gem's extend_ttl!, which sets the barriers of the running job to whatever
  # it is given. None of them lives shorter for it than before.
  module Prolongation
    def extend_ttl!(ttl: nil)
      execution = Execution.current
      return super if execution.nil? || SidekiqFlow::Companion.run_id(execution.job).nil?

      ttl = [Integer(ttl || configuration.barrier_ttl), MAX_TTL].min
      barriers = Callback.stack(execution.job).flat_map(&:keys)
      memory = SidekiqFlow::Companion.memory_key(execution.job)
      keys = memory.empty? ? ["", *barriers] : ["swf:keep:#{memory}", *barriers, memory]
      Sidekiq.redis { |conn| Scripts.run(conn, "extend", keys, [ttl, 1]) } > 0
    end
  end

  # Stands where the gem's middleware stood. It keeps what the job returned, and
  # works out what follows: inside of the application's own middleware, so that a
  # step is pushed for the tenant, and in the locale, of the one before.
  #
  # One case is left. When the last two jobs of a group end at the same time, none
  # of them can know that it is the last. What follows is then worked out after
  # the middleware has ended, and has of the context what the payload carries
  # (INHERITED).
  class Output
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      refuse_carrier(job, queue)
      refuse_other_dialect(job)
      dialect = SidekiqFlow::Companion.dialect
      return yield unless dialect.of?(job)

      Execution.of(job) do |execution|
        result = in_context_of_gem(job_instance, job, queue) { yield }
        complete(execution, queue, result) unless execution.pushed_again? || execution.refusal
        result
      end
    end

    private

    def complete(execution, queue, result)
      unit = Unit.current
      completion = Completion.new(unit || BorrowedUnit.new(config, queue, execution.job), execution.job, fields(execution.job, result))
      completion.prepare
      unit ? unit.completion = completion : completion.advance
    end

    # Python's steps without a name that Ruby can have travel as the gem's no-op,
    # which would pass them without their work.
    def refuse_carrier(job, queue)
      return unless DIALECTS.any? { |dialect| dialect.noop_class == job["class"] } && job["wrapped"]

      raise SidekiqFlow::WrongQueue.for(job, queue)
    end

    def refuse_other_dialect(job)
      dialect, other = SidekiqFlow::Companion.dialect, SidekiqFlow::Companion.other_dialect
      return unless other.of?(job) && !dialect.of?(job)

      raise OtherDialect, "The job is a step of the gem sidekiq-#{other.name} (#{other.run_id}), and this process has sidekiq-#{dialect.name}: " \
        "its run would stop here. Use the same gem in all Ruby processes, and in Python WorkflowMiddleware(dialect=#{dialect.name.inspect}); " \
        "until then, retry the job where its own gem is."
    end

    # The gem's own middleware, left as soon as the job is done: typed jobs and
    # extend_ttl! find what they need, and it does not come to advancing.
    def in_context_of_gem(job_instance, job, queue)
      middleware = SidekiqFlow::Companion.gem::Middleware.new
      middleware.config = config
      done = Object.new
      catch(done) { middleware.call(job_instance, job, queue) { throw done, yield } }
    end

    # [name, JSON, ...]; raises here, where it is still the job's own failure.
    def fields(job, result)
      result = result.to_h if result.is_a?(SidekiqFlow::Companion.gem::Schema)
      return [] unless result.is_a?(Hash) && SidekiqFlow::Companion.memory && !SidekiqFlow::Companion.run_id(job).to_s.empty?

      namespace = job["memory_namespace"]
      prefix = (namespace.is_a?(String) && !namespace.empty?) ? "#{namespace}." : ""
      result.flat_map { |name, value| ["#{prefix}#{name}", Sidekiq.dump_json(value)] }
    end
  end

  # One entry of the callback stack: [barrier id, what remains, propagate].
  Callback = Struct.new(:barrier, :remaining, :propagate) do
    # A job's stack, the top last.
    def self.stack(job)
      stored = job[SidekiqFlow::Companion.dialect.callbacks]
      return [] if stored.nil?

      entries = SidekiqFlow::Companion.gem.configuration.callback_storage.retrieve(stored)
      raise InvalidCallbacks, "The callback stack is not an array" unless entries.is_a?(Array)
      # Each is a barrier that one script looks at while Redis does nothing else.
      raise InvalidCallbacks, "The callback stack has #{entries.size} entries, more than #{MAX_ENTRIES}" if entries.size > MAX_ENTRIES

      # Whatever storage the gem has here: other workers may write references.
      entries = CallbackStorage.reader.retrieve(entries) if CallbackStorage.chains(entries).any?
      entries.map do |entry|
        barrier, remaining, propagate = entry
        # Barrier ids become Redis keys, so nothing but a UUID may pass.
        unless barrier.is_a?(String) && barrier.match?(UUID) && (remaining.nil? || remaining.is_a?(Hash)) &&
            entry.size == 3 && [true, false].include?(propagate)
          raise InvalidCallbacks, "The callback stack cannot be read: #{entry.inspect[0, 200]}"
        end
        new(barrier, remaining, propagate)
      end
    end

    # Counter, marker of the release, and the set of units already counted.
    def keys
      [barrier, "#{barrier}_ran", "#{barrier}:u"]
    end

    # f fires a continuation; n goes on with the next one down; s stops.
    def kind
      # What remains may be empty: then it completes at once.
      return Plan.completes_at_once?(remaining) ? "n" : "f" if remaining

      propagate ? "n" : "s"
    end
  end

  # Keeps what remains of long chains once, in Redis; payloads refer to it. A
  # chain of thousands then costs a step as much at its beginning as at its end.
  # With the gem alone, too:
  #
  #   Sidekiq::Workflow.configure do |cfg|
  #     cfg.callback_storage = SidekiqFlow::CallbackStorage.new
  #   end
  #
  # Every Ruby worker must have it before Python's RedisCallbackStorage is in use.
  # Keys and values are Python's (wire/references.py says what they are), but for
  # the order of a job's keys.
  class CallbackStorage
    # Of chains that a thread has seen last: what the gem stores next is, most
    # often, the rest of one of them.
    RECENT = 8

    # A stored chain outlives the barriers that lead to it, by so many seconds.
    MARGIN = 86_400

    # Seconds between two prolongations of one chain by one process.
    KEEP_EVERY = 3600

    SHA = /\A[0-9a-f]{64}\z/

    # Steps, and the reference to the rest of the chain from each of them.
    Chain = Struct.new(:children, :references) do
      def rest_from(sha)
        index = references.index { |reference| reference["sha"] == sha }
        {"__type__" => "chain", "children" => children.drop(index)} if index
      end

      # The reference to steps that are the last ones of this chain.
      def reference_to(steps)
        from = children.size - steps.size
        references[from] if from >= 0 && (steps.equal?(children) || children.drop(from) == steps)
      end
    end

    class << self
      # For references that the gem's own storage has left in a stack.
      def reader
        @reader ||= new
      end

      # The Redis keys that a stored stack refers to.
      def chains(stored)
        return [] unless stored.is_a?(Array)

        stored.filter_map do |_, remaining|
          "swf:callbacks:#{remaining["chain"]}" if remaining.is_a?(Hash) && remaining["__type__"] == "reference"
        end
      end
    end

    # min_bytes  the JSON size from which the rest of a chain is stored; a
    #            shorter one travels in the payload
    def initialize(min_bytes: 2048)
      @min_bytes = min_bytes
      @kept = {}
    end

    # What is written into a payload for a stack.
    def store(callbacks)
      callbacks.map { |barrier, remaining, propagate| [barrier, remaining && shorten(remaining, callbacks), propagate] }
    end

    # The stack for what is written in a payload, with complete trees.
    def retrieve(stored)
      return stored unless stored.is_a?(Array)

      stored.map do |entry|
        barrier, remaining, propagate = entry
        next entry unless remaining.is_a?(Hash) && remaining["__type__"] == "reference"

        [barrier, whole(remaining), propagate]
      end
    end

    private

    def shorten(remaining, callbacks)
      return remaining unless remaining["__type__"] == "chain" && !Plan.completes_at_once?(remaining)

      children = remaining["children"]
      known = find_recent { |chain| chain.reference_to(children) }
      # It may be long since: what is gone is stored again.
      return known if known && redis { |conn| conn.call("EXISTS", "swf:callbacks:#{known["chain"]}") } == 1

      json = children.map { |child| JSON.generate(child) }
      return remaining if json.sum { |text| text.bytesize + 1 } + 35 < @min_bytes

      write(children, json, callbacks)
    end

    def write(children, json, callbacks)
      # Steps at the end that have nothing to run are left out.
      last = children.rindex { |child| !Plan.completes_at_once?(child) }
      shas = [""]
      values = json[0..last].reverse.map do |text|
        value = "#{shas.first}:#{text}"
        shas.unshift(Digest::SHA256.hexdigest(value))
        value
      end
      delay = children.sum { |child| Plan.total_delay(child) }
      references = shas[0..-2].each_with_index.map { |sha, index| reference(shas.first, index, sha, delay) }
      remember(Chain.new(children, references)) if last == children.size - 1
      ttl = Plan.barrier_ttl(nil, callbacks.map { |entry| Callback.new(*entry) }) + MARGIN
      run("store_callbacks", references.first, ttl, *values.reverse)
      references.first
    end

    def whole(reference)
      delay = reference.fetch("delay", 0)
      at = reference["at"]
      unless [reference["chain"], reference["sha"]].all?(SHA) && at.is_a?(Integer) && at.between?(0, 2**53) && Plan.delay?(delay)
        raise InvalidCallbacks, "The callback stack cannot be read: #{reference.inspect[0, 200]}"
      end
      keep(reference)
      find_recent { |chain| chain.rest_from(reference["sha"]) } || read(reference)
    end

    def read(reference)
      values = run("read_callbacks", reference, ttl(reference), reference["at"], 1_000_000_000, 1 << 40)
      references = []
      children = []
      following = reference
      values.each do |value|
        unless Digest::SHA256.hexdigest(value) == following["sha"]
          raise CallbacksMissing, "Step #{following["at"]} of the stored chain #{reference["chain"]} is not what was stored there."
        end
        references << following
        sha, text = value.split(":", 2)
        children << stored_child(text, following)
        following = reference(following["chain"], following["at"] + 1, sha, reference.fetch("delay", 0))
      end
      unless following["sha"] == ""
        raise CallbacksMissing, "The Redis key \"swf:callbacks:#{reference["chain"]}\" has no step #{following["at"]}, so the run " \
          "cannot go on from here. It expired, or it was deleted."
      end
      remember(Chain.new(children, references))
      {"__type__" => "chain", "children" => children}
    end

    def stored_child(text, reference)
      JSON.parse(text.to_s)
    rescue JSON::JSONError, EncodingError
      raise InvalidNode, "Step #{reference["at"]} of the stored chain #{reference["chain"]} is not JSON: #{text.inspect[0, 200]}"
    end

    # Prolongs the life of a chain whose run moves.
    def keep(reference)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      chain = reference["chain"]
      return if @kept[chain] && now - @kept[chain] < KEEP_EVERY

      run("read_callbacks", reference, ttl(reference), 0, 0, 0)
      @kept = {} if @kept.size > 10_000
      @kept[chain] = now
    end

    def ttl(reference)
      RETRY_HORIZON + (reference.fetch("delay", 0) / 1000.0).to_i + 1 + MARGIN
    end

    def reference(chain, at, sha, delay)
      found = {"__type__" => "reference", "chain" => chain, "at" => at, "sha" => sha}
      found["delay"] = ((delay == delay.to_i) ? delay.to_i : delay) unless delay.zero?
      found
    end

    def run(script, reference, *arguments)
      redis { |conn| Scripts.run(conn, script, ["swf:callbacks:#{reference["chain"]}"], arguments) }
    end

    # A worker waits for its server; for others, the application decides.
    def redis(&block)
      return Sidekiq.redis(&block) if Unit.current.nil?

      SidekiqFlow::Companion.patiently(Sidekiq.logger) { Sidekiq.redis(&block) }
    end

    def find_recent
      recent.each_with_index do |chain, index|
        found = yield chain
        next if found.nil?

        recent.unshift(recent.delete_at(index))
        return found
      end
      nil
    end

    def recent
      Thread.current[:flow_recent_chains] ||= []
    end

    def remember(chain)
      recent.unshift(chain)
      recent.pop if recent.size > RECENT
    end
  end

  # A job is done: takes it out of flight, keeps its output, counts down its
  # barriers and pushes what follows, in one step.
  #
  # A chain's continuation always fires, so its plan goes along at once. The
  # jobs of a group send none, but for the last one. Which one that is, is for the
  # script to say: it names the callback that fires, and is sent again with its
  # plan, where that was not foreseen.
  class Completion
    def initialize(unit, job, fields)
      @unit = unit
      @job = job
      @fields = fields
      @stack = Callback.stack(job)
      @top_down = @stack.reverse
      @kinds = @top_down.map(&:kind)
      @planned = 0
    end

    # Works out what follows, as far as it can be foreseen, and writes none of it.
    def prepare
      plan(firing)
    end

    def advance
      return if @stack.empty? && memory_key.empty?

      loop do
        reply = SidekiqFlow::Companion.patiently(@unit.config.logger) { send_script }
        case reply[0]
        when "DONE", "GONE" then return pour
        when "PLAN" then plan(reply[1])
        when "EXPIRED"
          raise BarrierExpired, "The barrier #{reply[1]} is gone, so the run cannot go on from here. " \
            "It expired, or it was deleted."
        when "TYPE"
          raise WrongType, "The Redis key #{reply[1].inspect} holds another type than a workflow needs there."
        end
        # STAGE: what was staged has vanished; it is staged again.
      end
    end

    private

    def run_id
      SidekiqFlow::Companion.run_id(@job)
    end

    # The step has left flight: what is left of a fan-out is poured by the next
    # beat of any process, where Redis is away now.
    def pour
      return unless @plan&.fanout?

      @unit.config.redis { |conn| Fanouts.pour_all(conn, @unit.config.logger) }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.say(@unit.config.logger, error)
    end

    # For the callback of that number (1 is the top; 0: none).
    def plan(number)
      @planned = number
      @plan = nil
      return if number.zero?

      @plan = Plan.new(@top_down[number - 1].remaining, @stack[0...-number],
        run_id: run_id, finished: @job, queue: @unit.queue_name, config: @unit.config)
    end

    # The number of the callback that fires when this job is done. A look that
    # writes nothing; what it sees may have changed by the time of the script.
    def firing
      return 1 if @kinds.first == "f"
      return 0 unless @kinds.include?("f")

      counted = unit_id
      look.each_with_index do |(value, marker, units), index|
        return 0 if value.nil? || marker.to_i != -1 || units.include?(counted) || value.to_i > 1
        return index + 1 if @kinds[index] == "f"
        return 0 if @kinds[index] == "s"

        counted = @top_down[index].barrier
      end
      0
    rescue Refused # a key of another type: the script will say so
      0
    end

    # [value, marker, units counted that may be this job's] of each callback.
    def look
      units = [unit_id, *@top_down.map(&:barrier)]
      replies = SidekiqFlow::Companion.patiently(@unit.config.logger) do
        @unit.config.redis do |conn|
          conn.pipelined do |pipeline|
            @top_down.zip(units) do |callback, unit|
              barrier, ran, set = callback.keys
              pipeline.call("GET", barrier)
              pipeline.call("GET", ran)
              pipeline.call("SISMEMBER", set, unit)
            end
          end
        end
      end
      replies.each_slice(3).zip(units).map { |(value, marker, counted), unit| [value, marker, counted.to_i == 1 ? [unit] : []] }
    end

    def send_script
      plan_keys, plan_arguments = @plan ? @plan.writes : [[], [0, 0, 0, 0]]
      memory_ttl = SidekiqFlow::Companion.memory&.ttl || 0
      keys = [memory_key, "queues", "schedule", *@top_down.flat_map(&:keys), *plan_keys]
      arguments = [unit_id, Plan.barrier_ttl(nil, @stack), memory_ttl, @fields.size / 2, *@fields, @kinds.size, *@kinds]
      @unit.advance(keys, [*arguments, @planned, *plan_arguments])
    end

    # It is kept alive with every step, also by those that write nothing there.
    def memory_key
      SidekiqFlow::Companion.memory_key(@job)
    end

    # What the barriers count: the jid.
    def unit_id
      jid = @job["jid"]
      (jid.is_a?(String) && !jid.empty?) ? jid : SidekiqFlow::Companion.fingerprint(@unit.job)
    end
  end

  # What starting a node writes, worked out to the end (Python's twin of this is
  # workflow/plan.py):
  #
  # * a job is pushed with the stack, to `schedule` when it is delayed;
  # * a chain makes a barrier of 1 for what remains, and starts its first child;
  # * a group makes a barrier of its size, and starts every child;
  # * an empty one completes at once; delayed, it becomes a NoopWorker job.
  #
  # A step whose class is no Ruby constant is one of the other language: it goes
  # as it stands in the tree, with Sidekiq's defaults for what is not said.
  class Plan
    include Sidekiq::JobUtil

    # A plan with more jobs or barriers, or with more bytes, is staged first, so
    # that no single script holds Redis up for long.
    MAX_INLINE = 1000
    MAX_BYTES_INLINE = 1024 * 1024

    MAX_DEPTH = 100

    # Milliseconds: 31,000 years. Larger numbers are beyond what Redis counts.
    MAX_DELAY = 10**15

    NAME = ->(value) { value.is_a?(String) && value.length.between?(1, 255) }
    SECONDS = ->(value) { value.is_a?(Numeric) && value.abs <= MAX_DELAY / 1000 }

    # What a push reads, or the failure of what was pushed. They may be null.
    READ_BY_PUSH = {
      "jid" => NAME,
      "retry" => ->(value) { value == true || value == false || value.is_a?(Integer) },
      "retry_queue" => NAME,
      "retry_for" => SECONDS,
      "tags" => ->(value) { value.is_a?(Array) },
      "wrapped" => NAME,
      "memory_namespace" => ->(value) { value.is_a?(String) }
    }.freeze

    class << self
      # Raises InvalidNode for a tree that could not be started. Better now than
      # when the work before it is done.
      def check(node, depth = 0)
        raise InvalidNode, "The workflow is nested too deep" if depth > MAX_DEPTH

        case node.is_a?(Hash) && node["__type__"]
        when "job" then check_job(node)
        when "with_delay"
          raise InvalidNode, "This is not a delay: #{node["delay"].inspect[0, 200]}" unless delay?(node["delay"])

          check(node["task"], depth + 1)
        when "chain", "group" then children(node).each { |child| check(child, depth + 1) }
        else raise InvalidNode, "This is not part of a workflow tree: #{node.inspect[0, 200]}"
        end
      end

      def delay?(value)
        value.is_a?(Numeric) && value.abs <= MAX_DELAY
      end

      def completes_at_once?(node)
        case node["__type__"]
        when "job" then false
        when "with_delay" then node["delay"].zero? && completes_at_once?(node["task"])
        else children(node).all? { |child| completes_at_once?(child) }
        end
      end

      def check_job(node)
        raise InvalidNode, "A job needs the name of a class, not #{node["class"].inspect[0, 200]}" unless NAME.call(node["class"])
        raise InvalidNode, "The args of #{node["class"]} are not an array: #{node["args"].inspect[0, 200]}" unless node["args"].is_a?(Array)
        raise InvalidNode, "The queue of #{node["class"]} is not a name: #{node["queue"].inspect[0, 200]}" unless NAME.call(node.fetch("queue", "-"))
        raise InvalidNode, "The at of #{node["class"]} is not a time: #{node["at"].inspect[0, 200]}" unless SECONDS.call(node.fetch("at", 0))

        name, = READ_BY_PUSH.find { |key, readable| !node[key].nil? && !readable.call(node[key]) }
        raise InvalidNode, "The #{name} of #{node["class"]} cannot be read: #{node[name].inspect[0, 200]}" if name
      end

      # Seconds that barriers must live: all delays ahead, and a job's retries.
      def barrier_ttl(node, stack)
        trees = [*stack.map(&:remaining), node].compact
        [RETRY_HORIZON + (trees.sum { |tree| total_delay(tree) } / 1000.0).to_i + 1, MAX_TTL].min
      end

      def children(node)
        found = node["children"]
        return found if %w[chain group].include?(node["__type__"]) && found.is_a?(Array)

        raise InvalidNode, "This is not part of a workflow tree: #{node.inspect[0, 200]}"
      end

      # Milliseconds.
      def total_delay(node)
        case node["__type__"]
        when "job" then node["at"].is_a?(Numeric) ? [0, (node["at"] - Time.now.to_f) * 1000].max : 0
        when "reference" then node.fetch("delay", 0)
        when "with_delay" then [0, node["delay"]].max + total_delay(node["task"])
        when "chain" then children(node).sum { |child| total_delay(child) }
        else children(node).map { |child| total_delay(child) }.max || 0
        end
      end
    end

    def initialize(node, stack, run_id:, finished:, queue:, config:)
      @run_id = run_id
      @finished = finished
      @queue = queue
      @config = config
      @now = Time.now.to_f
      @ttl = Plan.barrier_ttl(node, stack)
      @dialect = SidekiqFlow::Companion.dialect
      @inherited = SidekiqFlow::Companion.inherited(finished)
      # The tag by which Sidekiq's Web UI finds a run's jobs.
      @tags = Array(finished["tags"]) & ["wf:#{run_id.to_s[0, 8]}"]
      @barriers = {}
      @pushes = Hash.new { |queues, name| queues[name] = [] }
      @scheduled = []
      @jids = Set.new
      start(node, stack, 0)
    end

    # [keys, arguments] as _plan.lua reads them. A large plan is staged now.
    def writes
      return staged if fanout?

      keys = [*@barriers.keys.flat_map { |id| [id, "#{id}_ran"] }, *@pushes.keys.map { |queue| "queue:#{queue}" }]
      arguments = [@barriers.size, *barriers.flat_map { |_, ttl, value, ran| [ttl, value, ran] },
        @pushes.size, *@pushes.flat_map { |queue, jobs| [queue, jobs.size, *jobs] },
        @scheduled.size, *@scheduled.flatten, 0]
      [keys, arguments]
    end

    # Whether it is too large for one script.
    def fanout?
      jobs = @pushes.sum { |_, pushed| pushed.size } + @scheduled.size
      # A single job gains nothing: it is one element in any way.
      [jobs, @barriers.size].max > MAX_INLINE || (jobs > 1 && bytes > MAX_BYTES_INLINE)
    end

    private

    # Starts a node; true when it completes at once.
    def start(node, stack, delay)
      case node["__type__"]
      when "with_delay" then start(node["task"], stack, delay + node["delay"])
      when "job" then push(node, stack, delay)
      else
        children = Plan.children(node)
        if children.empty?
          delay.zero? || push({"class" => @dialect.noop_class, "args" => [], "retry" => 0, "queue" => noop_queue}, stack, delay)
        elsif node["__type__"] == "group"
          start_group(children, stack, delay)
        else
          start_chain(children, stack, delay)
        end
      end
    end

    def start_chain(children, stack, delay)
      until children.empty?
        first, *rest = children
        return start(first, stack, delay) if rest.empty?

        barrier = make_barrier(1)
        remaining = Callback.new(barrier, {"__type__" => "chain", "children" => rest}, false)
        return false unless start(first, [*stack, remaining], delay)

        # It completed at once: what remains starts now, and without the delay,
        # which was the first child's.
        @barriers[barrier] = [0, 0]
        children = rest
        delay = 0
      end
      true
    end

    def start_group(children, stack, delay)
      barrier = make_barrier(children.size)
      below = [*stack, Callback.new(barrier, nil, true)]
      left = children.count { |child| !start(child, below, delay) }
      @barriers[barrier] = left.zero? ? [0, 0] : [left, -1]
      left.zero?
    end

    def make_barrier(value)
      SecureRandom.uuid.tap { |id| @barriers[id] = [value, -1] }
    end

    # As Sidekiq::Client#push, client middleware included, but kept for the
    # script to write. False: a job does not complete at once.
    def push(node, stack, delay)
      job_class = constant(node["class"]) || node["class"]
      # What was said of this very job comes last: a tenant given to the step is
      # not overwritten.
      item = @inherited.merge(node, "class" => job_class)
      item.delete("__type__")
      item[@dialect.run_id] = @run_id
      item[@dialect.callbacks] = stored(stack) unless stack.empty?
      item["at"] = @now + delay / 1000.0 if delay > 0
      # An id that was given is kept, and no barrier counts the same id twice.
      item.delete("jid") unless item["jid"].is_a?(String) && @jids.add?(item["jid"])
      item = normalized(item)
      item["tags"] = Array(item["tags"]) | @tags unless @tags.empty?
      payload = Pushes.planned do
        @config.client_middleware.invoke(job_class, item, item["queue"], @config.redis_pool) { item }
      end
      raise PushStopped, "A client middleware did not let #{node["class"]} be pushed" unless payload.is_a?(Hash)

      at = payload.delete("at")
      if at
        @scheduled << [at.to_s, Sidekiq.dump_json(payload.reject { |key, _| key == "enqueued_at" })]
      else
        payload["enqueued_at"] = SidekiqFlow::Companion.stamp(@now)
        @pushes[payload["queue"]] << Sidekiq.dump_json(payload)
      end
      false
    end

    def normalized(item)
      normalize_item(item)
    rescue ArgumentError => error
      raise InvalidNode, error.message
    end

    # The Ruby job class of that name, for the sake of its sidekiq_options.
    def constant(name)
      raise InvalidNode, "A job needs the name of a class, not #{name.inspect}" unless name.is_a?(String)
      return nil unless name.match?(CONSTANT) && Object.const_defined?(name)

      found = Object.const_get(name)
      found if found.is_a?(Class) && found.respond_to?(:get_sidekiq_options)
    rescue TypeError # A::B, and A is no module
      nil
    end

    # All children of a group share one stack: it is stored once.
    def stored(stack)
      unless stack.equal?(@stored_stack)
        @stored_stack = stack
        @stored = SidekiqFlow::Companion.gem.configuration.callback_storage.store(stack.map(&:to_a))
      end
      @stored
    end

    # A queue that somebody consumes, for a job that does nothing: `default`, as
    # the gem has it, else the one that the finished job came from.
    def noop_queue
      config = @config.respond_to?(:capsules) ? @config : @config.config # that of a capsule
      consumed = config.capsules.each_value.flat_map(&:queues)
      consumed.include?("default") ? "default" : @queue
    end

    def bytes
      @pushes.sum { |_, jobs| jobs.sum(&:bytesize) } + @scheduled.sum { |_, payload| payload.bytesize }
    end

    # [id, ttl, value, ran] of each.
    def barriers
      @barriers.map { |id, (value, ran)| [id, value.zero? ? RELEASED_TTL : @ttl, value, ran] }
    end

    def staged
      elements = elements_to_stage
      id = @config.redis { |conn| Fanouts.stage(conn, elements) }
      queues = @scheduled.empty? ? @pushes.keys : [*@pushes.keys, ""]
      [[Fanouts.key(id), Fanouts::FANOUTS], [0, 0, 0, 1, id, elements.size, queues.size, *queues]]
    end

    # The list of stage.lua.
    def elements_to_stage
      [
        *barriers.map { |id, ttl, value, ran| "b#{ttl} #{value} #{ran} #{id}" },
        *@pushes.flat_map { |queue, jobs| ["q#{queue}", *jobs] },
        *@scheduled.map { |at, payload| "s#{at} #{payload}" }
      ]
    end
  end

  # Sidekiq's poller looks at Redis before its first round. A server that is sick
  # at that moment ends its thread, and nothing is ever due any more.
  module PatientPoller
    private

    def initial_wait
      super
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.say(logger, error)
    end
  end

  # Moves due jobs from `schedule` and `retry` to their queues, each in one step:
  # Sidekiq's own takes a job out first and pushes it second. What cannot be read
  # goes to `dead`.
  #
  # Client middleware does not run again here, as it does in Sidekiq's own: two
  # pollers may look at the same job, and only one of them will move it.
  class Promoter
    include Sidekiq::Component
    include Sidekiq::JobUtil

    BATCH = 100

    # +error+ where it goes to `dead`: then it has no queue.
    Promotion = Struct.new(:member, :queue, :payload, :error)

    def initialize(config)
      @config = config
      @done = false
      @complained = {}
    end

    def enqueue_jobs(sets = %w[retry schedule])
      sets.each do |set|
        enqueue_due(set)
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        return Trouble.say(logger, error) if Trouble.passes?(error)

        # A set of another type is in no other set's way.
        complain(set, "#{set} cannot be read: #{error.message}")
      end
    end

    def terminate
      @done = true
    end

    private

    def enqueue_due(set)
      stuck = 0
      until @done
        members = redis { |conn| conn.call("ZRANGE", set, "-inf", Time.now.to_f.to_s, "BYSCORE", "LIMIT", stuck, BATCH) }
        stuck += promote(set, members.map { |member| promotion(member) }) unless members.empty?
        break if members.size < BATCH
      end
      complain(set, "#{stuck} due jobs of #{set} can go nowhere: `dead` or `queues` is of another type. Remove it") if stuck > 0
    end

    # Once a minute for each set.
    def complain(set, text)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      return if @complained[set] && now - @complained[set] < 60

      @complained[set] = now
      logger.error(text)
    end

    # How many stay where they are.
    def promote(set, promotions)
      misplaced, stuck = move(set, promotions)
      misplaced.map! { |found| refused(found) }
      stuck += misplaced.empty? ? [] : move(set, misplaced).flatten(1)
      bad = [*promotions.select(&:error), *misplaced] - stuck
      unless bad.empty?
        logger.error("#{bad.size} due jobs of #{set} cannot go to a queue and are now in 'dead': " \
          "#{bad.first.error.message}: #{bad.first.member.inspect[0, 200]}")
      end
      stuck.size
    end

    def refused(found)
      error = WrongType.new("The Redis key queue:#{found.queue} is not a list, so the job cannot go there.")
      Promotion.new(found.member, "", SidekiqFlow::Companion.corpse(found.payload, error, found.queue), error)
    end

    # Those whose queue is of another type, and those that `dead`, `queues` or the
    # set itself, of another type, keeps where they are.
    def move(set, promotions)
      reply = redis do |conn|
        Scripts.run(conn, "promote", [set, "dead", "queues", *promotions.map { |found| "queue:#{found.queue}" }],
          [Time.now.to_f.to_s, *promotions.flat_map { |found| [found.member, found.queue, found.payload] }])
      end
      reply[1, 2].map { |numbers| numbers.map { |number| promotions[number - 1] } }
    end

    def promotion(member)
      raw = SidekiqFlow::Companion.unwrapped(member)
      error = SidekiqFlow::Companion.fault(raw)
      raise error if error

      item = SidekiqFlow::Companion.parse(raw)
      item.delete("at")
      item.delete("queue") if item["queue"] == "" || item["queue"].nil?
      raise InvalidPayload, "The job's queue is not a name: #{item["queue"].inspect[0, 200]}" unless !item.key?("queue") || item["queue"].is_a?(String)

      item["jid"] = SidekiqFlow::Companion.fingerprint(raw) unless item["jid"].is_a?(String) && !item["jid"].empty?
      item = normalize_item(item)
      item["enqueued_at"] = SidekiqFlow::Companion.stamp
      Promotion.new(member, item["queue"], Sidekiq.dump_json(item))
    rescue => error
      error = InvalidPayload.new(error.message) unless error.is_a?(InvalidPayload)
      Promotion.new(member, "", SidekiqFlow::Companion.corpse(member, error, "default"), error)
    end
  end
end

# As it is configured.
SidekiqFlow::CallbackStorage = SidekiqFlow::Companion::CallbackStorage

# Runs in a process that is not a server, which has nothing else to call.
Sidekiq.configure_client { |config| SidekiqFlow::Companion.configure_client(config) }

# What follows is Lua, the same text as in the Python package: do not edit it here.
__END__
-- @file advance.lua
-- Advances a run past a finished step: takes its job out of flight, writes its
-- output to the memory, counts down barriers, and writes what follows.  One atomic
-- step, safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), 'queues', 'schedule',
--       the callbacks' (see _walk), the plan's (see _plan)
-- ARGV: receipt, unit (the jid), ttl of barriers in seconds,
--       seconds that the memory outlives its run, the fields' (see _fields),
--       the callbacks',
--       index of the callback that the plan is for (1 = the top), 0 = no plan,
--       the plan's
-- Returns: {'DONE'} | {'GONE'} the receipt is not in flight: sent twice, or
--       recovered by another worker | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is not a
--       whole number | {'STAGE', key} nothing written: stage the plan again
--
-- The memory lives as long as its run: while anything waits, as long as the
-- barriers do; when nothing is left, for its own ttl, or for what extend_ttl asked
-- for (swf:keep:MEMORY lives that long).

-- The walk over a step's callback stack: which barriers the step counts down,
-- and which callback then fires.  advance.lua walks for a step on a Sidekiq queue,
-- count.lua for one on another broker, whose callbacks have a fourth key.
--
-- In KEYS, from k on, width (3 or 4) per callback from the top:
--   BARRIER, BARRIER_ran, BARRIER:u, and BARRIER:f (see count.lua) if width is 4
-- In ARGV, from a on: number of callbacks, per callback: kind
--   'f' fires a continuation         (the walk stops there)
--   'n' has none and propagates      (count down the next one, too)
--   's' has none, does not propagate (the walk stops)
--
-- walk(unit, k, a, width) -> what was found, or nil and an error reply: {'TYPE', key}
--                            | {'EXPIRED', BARRIER}.  It writes nothing.  Found are
--   n         number of callbacks
--   counts    barriers to count down, in order; all are released, but the last may wait
--   released  how many of them are released
--   fire      index of the callback that fires (1 = the top), 0 = none
--   again     set if this unit released the barrier of that callback before (width 4)
--   new       false if the top barrier has counted this step before
-- count_down(count, kept): writes one of counts, and keeps a released barrier for that
--                            many seconds.  Returns true if BARRIER:u has no expiry yet:
--                            the caller knows how long it must live
-- prolong_waiting(walked, ttl): lets barriers that still wait, and what belongs to them,
--                            live for ttl seconds
-- RELEASED_TTL: a day; so long a released barrier is kept for a duplicate that comes late
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that comes
-- twice counts once.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- SLACK: the seconds that a lifetime may fall short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600

local RELEASED_TTL = 86400

local function walk(unit, k, a, width)
  local n = tonumber(ARGV[a])
  local walked = {n = n, first_key = k, width = width, counts = {}, released = 0, fire = 0, again = false, new = true}
  for i = 1, n do
    local barrier, ran, units = KEYS[k], KEYS[k + 1], KEYS[k + 2]
    local fired = width == 4 and KEYS[k + 3]
    local kind = ARGV[a + i]
    if not type_is(barrier, 'string') then return nil, {'TYPE', barrier} end
    if not type_is(ran, 'string') then return nil, {'TYPE', ran} end
    if fired and not type_is(fired, 'string') then return nil, {'TYPE', fired} end
    if not type_is(units, 'set') then return nil, {'TYPE', units} end
    local releaser = fired and redis.call('GET', fired)
    if releaser then
      if i == 1 then walked.new = false end
      -- The unit that released the barrier goes the same way again.
      if releaser ~= unit then break end
    else
      local value, marker = redis.call('GET', barrier), redis.call('GET', ran)
      if not value or not marker then return nil, {'EXPIRED', barrier} end
      value, marker = whole(value), whole(marker)
      if not value then return nil, {'TYPE', barrier} end
      if not marker then return nil, {'TYPE', ran} end
      if marker ~= -1 or redis.call('SISMEMBER', units, unit) == 1 then
        if i == 1 then walked.new = false end
        break
      end
      local released = value <= 1
      walked.counts[#walked.counts + 1] = {
        barrier = barrier, ran = ran, units = units, fired = fired, unit = unit, value = value, released = released,
      }
      if not released then break end
      walked.released = walked.released + 1
    end
    if kind == 'f' then
      walked.fire, walked.again = i, releaser
      break
    end
    if kind == 's' then break end
    unit = barrier
    k = k + width
  end
  return walked
end

local function count_down(count, kept)
  if count.released then
    redis.call('SETEX', count.barrier, kept, count.value - 1)
    redis.call('SETEX', count.ran, kept, 0)
    redis.call('UNLINK', count.units)
    return false
  end
  redis.call('DECR', count.barrier)
  redis.call('SADD', count.units, count.unit)
  return redis.call('TTL', count.units) < 0
end

local function prolong_waiting(walked, ttl)
  for i = walked.released, walked.n - 1 do
    local k = walked.first_key + walked.width * i
    if redis.call('TTL', KEYS[k]) < ttl - SLACK then
      redis.call('EXPIRE', KEYS[k], ttl)
      redis.call('EXPIRE', KEYS[k + 1], ttl)
      redis.call('EXPIRE', KEYS[k + 2], ttl)
    end
  end
end
-- Fields of a run's memory, as arguments.
--
-- In ARGV, from a on: number of fields, per field: name, JSON
--
-- read_fields(a)            -> the fields, and the index behind them
-- write_fields(key, fields) -> writes them; the caller has checked the type of the key

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local function read_fields(a)
  local n = tonumber(ARGV[a])
  local last = a + 2 * n
  return {n = n, first = a + 1, last = last}, last + 1
end

local function write_fields(key, fields)
  call_in_slices('HSET', key, ARGV, fields.first, fields.last)
end
-- What follows a step, or the first jobs of a run: reads a plan from the arguments,
-- then writes it.
--
-- In KEYS, from k on:  2 per barrier (id, id_ran), then 1 per queue list,
--                      then of a fan-out: swf:fanout:ID, 'swf:fanouts'
-- In ARGV, from a on:  number of barriers; per barrier: ttl, value, ran
--                      number of queues;   per queue: name, n, n payloads
--                      number of scheduled; per job: score, payload
--                      number of fan-outs (0 or 1), then of it: ID, how many
--                      elements it has, how many queues it goes to, their names
--                      ('' = `schedule`)
-- QUEUES and SCHEDULE are the keys of the set and the zset.
--
-- read_plan(k, a, QUEUES, SCHEDULE) -> the plan, or nil and an error reply: {'TYPE', key}
--                      | {'STAGE', key} the list of the fan-out has vanished
-- write_plan(plan): cannot fail, since read_plan has seen all types
--
-- A plan too large for one script was staged as a list (stage.lua).  It is only
-- committed here: the list no longer expires, and its ID is in `swf:fanouts`, so
-- any process can push what it holds (pour.lua).


local function read_plan(k, a, QUEUES, SCHEDULE)
  local n = tonumber(ARGV[a]); a = a + 1
  local plan = {QUEUES = QUEUES, SCHEDULE = SCHEDULE, barriers = n, barrier_key = k, barrier_argument = a, queues = {}}
  k = k + 2 * n; a = a + 3 * n
  n = tonumber(ARGV[a]); a = a + 1
  if n > 0 and not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
  for i = 1, n do
    local count = tonumber(ARGV[a + 1])
    plan.queues[i] = {key = KEYS[k], name = ARGV[a], first = a + 2, last = a + 1 + count}
    if not type_is(KEYS[k], 'list') then return nil, {'TYPE', KEYS[k]} end
    k = k + 1; a = a + 2 + count
  end
  n = tonumber(ARGV[a]); a = a + 1
  plan.first_scheduled, plan.last_scheduled = a, a + 2 * n - 1
  if n > 0 and not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
  a = a + 2 * n
  n = tonumber(ARGV[a]); a = a + 1
  if n > 0 then
    local list, fanouts = KEYS[k], KEYS[k + 1]
    if not type_is(list, 'list') then return nil, {'TYPE', list} end
    if redis.call('LLEN', list) ~= tonumber(ARGV[a + 1]) then return nil, {'STAGE', list} end
    if not type_is(fanouts, 'zset') then return nil, {'TYPE', fanouts} end
    for i = a + 3, a + 2 + tonumber(ARGV[a + 2]) do
      local name = ARGV[i]
      if name == '' then
        if not type_is(SCHEDULE, 'zset') then return nil, {'TYPE', SCHEDULE} end
      else
        local queue = 'queue:' .. name
        if not type_is(QUEUES, 'set') then return nil, {'TYPE', QUEUES} end
        if not type_is(queue, 'list') then return nil, {'TYPE', queue} end
      end
    end
    plan.fanout = {list = list, fanouts = fanouts, now = redis.call('TIME')[1], id = ARGV[a]}
  end
  return plan
end

local function write_plan(plan)
  local k, a = plan.barrier_key, plan.barrier_argument
  for _ = 1, plan.barriers do
    redis.call('SETEX', KEYS[k], ARGV[a], ARGV[a + 1])
    redis.call('SETEX', KEYS[k + 1], ARGV[a], ARGV[a + 2])
    k = k + 2; a = a + 3
  end
  for _, queue in ipairs(plan.queues) do
    redis.call('SADD', plan.QUEUES, queue.name)
    call_in_slices('LPUSH', queue.key, ARGV, queue.first, queue.last)
  end
  call_in_slices('ZADD', plan.SCHEDULE, ARGV, plan.first_scheduled, plan.last_scheduled)
  if plan.fanout then
    redis.call('PERSIST', plan.fanout.list)
    redis.call('ZADD', plan.fanout.fanouts, plan.fanout.now, plan.fanout.id)
  end
end

local in_flight, memory = KEYS[1], KEYS[2]
local receipt, unit, ttl, memory_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

if not type_is(in_flight, 'hash') then return {'TYPE', in_flight} end
if redis.call('HEXISTS', in_flight, receipt) == 0 then return {'GONE'} end

-- Reads.
local fields, a = read_fields(5)
local walked, wrong = walk(unit, 5, a, 3)
if not walked then return wrong end
a = a + 1 + walked.n
local fires = walked.fire > 0
if fires and tonumber(ARGV[a]) ~= walked.fire then return {'PLAN', walked.fire} end
local writes_fields = walked.new and fields.n > 0
if writes_fields and not type_is(memory, 'hash') then return {'TYPE', memory} end
local plan
if fires then
  plan, wrong = read_plan(5 + 3 * walked.n, a + 1, KEYS[3], KEYS[4])
  if not plan then return wrong end
end

-- Writes. The gate comes first: it passes when Redis is out of memory, and
-- after it the rest of the script does, too.
redis.call('HDEL', in_flight, receipt)
if writes_fields then write_fields(memory, fields) end
for _, count in ipairs(walked.counts) do
  if count_down(count, RELEASED_TTL) then
    -- As long as the barrier, which may wait for a child with a long delay.
    redis.call('EXPIRE', count.units, math.max(ttl, redis.call('TTL', count.barrier)))
  end
end
if plan then write_plan(plan) end
prolong_waiting(walked, ttl)
if memory ~= '' and walked.new then
  local left, wanted = redis.call('TTL', memory), memory_ttl
  local waits = walked.released < walked.n
  local over = not waits and not fires
  if not over then wanted = math.max(wanted, ttl) end
  -- The lowest barrier waits for all of the run, siblings with a delay too.
  if waits then wanted = math.max(wanted, redis.call('TTL', KEYS[2 + 3 * walked.n])) end
  if left ~= -2 and (over or left < wanted - SLACK) then
    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))
  end
end
return {'DONE'}
-- @file beat.lua
-- Records heartbeats and returns workers whose heartbeat has expired.
--
-- KEYS: swf:workers
-- ARGV: seconds without a beat that make a worker dead, how many of the dead to
--       pass over (they are known), per member of this process: its name, and
--       how many jobs it holds ('' = do not look)
-- Returns: {members without a beat for that long, 16 at most,
--       members of this process that have more in flight than they hold,
--       1 if fan-outs are not pushed to the end (see pour.lua), else 0}

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
local timeout = tonumber(ARGV[1])

local function beat(member)
  -- ZREM passes when Redis is out of memory, and after it ZADD does, too: a
  -- full Redis must not make every worker look dead.
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZADD', KEYS[1], string.format('%.6f', now), member)
end

local more = {}
for i = 3, #ARGV, 2 do
  beat(ARGV[i])
  if ARGV[i + 1] ~= '' then
    local found = redis.pcall('HLEN', 'swf:inflight:' .. ARGV[i])
    if type(found) == 'number' and found > tonumber(ARGV[i + 1]) then more[#more + 1] = ARGV[i] end
  end
end
-- The clock of Redis was set back: dead workers would be found only when it has
-- caught up.  Live ones beat again soon.
local future = string.format('(%.6f', now + timeout)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], future, '+inf', 'LIMIT', 0, 100)) do beat(member) end
local expired = string.format('(%.6f', now - timeout)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', expired, 'LIMIT', ARGV[2], 16)
local has_fanouts = redis.call('TYPE', 'swf:fanouts').ok == 'zset'
return {dead, more, has_fanouts and 1 or 0}
-- @file begin.lua
-- Marks that a job that was fetched ahead begins: its receipt BASE:I? becomes BASE:I.
-- Only jobs that had begun count when their worker dies.  Safe to send twice.
--
-- KEYS: in-flight hash
-- ARGV: the receipt, with its '?'
-- Returns: 1, or 0 if the job is no longer in flight here: recovered by
--       another worker, it must not run | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
local begun = string.sub(ARGV[1], 1, -2)
local payload = redis.call('HGET', KEYS[1], ARGV[1])
if not payload then return redis.call('HEXISTS', KEYS[1], begun) end
-- HDEL passes when Redis is out of memory, and after it HSET does, too.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], begun, payload)
return 1
-- @file extend.lua
-- Extends the lifetimes of a run's barriers and memory; shortens none of them.
--
-- KEYS: swf:keep:MEMORY ('' = none), then the keys to keep alive
-- ARGV: ttl in seconds, '1' if the memory is to live that long even when the run
--       is over before
-- Returns: how many of the keys exist

-- Lets keys live longer, never shorter.  A missing key stays missing.
--
-- prolong(key, ttl): for ttl seconds at least, also a key that had no expiry, since
--       all that belongs to a run expires
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but a
--       key without an expiry keeps none, and one that has up to slack seconds less
--       than ttl is left as it is

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end

local ttl, found = tonumber(ARGV[1]), 0
if ARGV[2] == '1' and KEYS[1] ~= '' and redis.call('TTL', KEYS[1]) < ttl then
  redis.call('SETEX', KEYS[1], ttl, 1)
end
for i = 2, #KEYS do
  if prolong_volatile(KEYS[i], ttl, 0) then found = found + 1 end
end
return found
-- @file fail.lua
-- Moves a failed job from flight to `retry` or `dead`, or discards it.
--
-- KEYS: in-flight hash, 'retry' or 'dead', then keys of barriers and memory to keep alive
-- ARGV: receipt, action ('retry', 'dead', 'discard'), score, payload,
--       score up to which `dead` is trimmed, most jobs that `dead` keeps,
--       seconds that those live on
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- Lets keys live longer, never shorter.  A missing key stays missing.
--
-- prolong(key, ttl): for ttl seconds at least, also a key that had no expiry, since
--       all that belongs to a run expires
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but a
--       key without an expiry keeps none, and one that has up to slack seconds less
--       than ttl is left as it is

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
local action = ARGV[2]
if action ~= 'discard' and not type_is(KEYS[2], 'zset') then return {'TYPE', KEYS[2]} end
redis.call('HDEL', KEYS[1], ARGV[1])
if action ~= 'discard' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
if action == 'dead' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[6]))
end
for i = 3, #KEYS do prolong(KEYS[i], tonumber(ARGV[7])) end
return {'DONE'}
-- @file fetch.lua
-- Moves a batch of jobs from a queue into flight.
--
-- KEYS: queue list, in-flight hash, swf:workers, 'paused' (optional: a caller
--       that cannot pause a queue leaves it out)
-- ARGV: member (the worker process and queue), receipt base, how many,
--       how many of them begin at once because threads are idle,
--       '1' in a burst: jobs end faster than each could be marked, else '',
--       bytes after which no further job is taken (the first one always is)
-- Returns: {lengths in bytes, all payloads in one string, n, suffix}: one reply
--       of many parts costs the client more than the jobs.  The receipts of the
--       first n are BASE:1, BASE:2, ... (begun), those after them have the
--       suffix: '?' not begun (begin.lua marks it later), '~' perhaps begun.
--       If the same base moved some before (sent twice), those; none if the
--       first of them has left flight since (delivered late).
--       False if the worker is not registered (it was declared dead): beat first,
--       then fetch.  {'PAUSED'} if the queue is: nothing was moved.
--       {'TYPE', key} nothing was moved.
--
-- The sorted set swf:fetched:MEMBER holds the bases of the last fetches that
-- moved something.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

-- Threads of one process that may fetch from a queue at once; a base that is older
-- than so many others is used up.
local REMEMBERED = 64

local base, wanted = ARGV[2], tonumber(ARGV[3])
local fetched = 'swf:fetched:' .. ARGV[1]

local function reply(payloads, begun, suffix)
  local lengths = {}
  for i, payload in ipairs(payloads) do lengths[i] = #payload end
  -- A single one, which may be large, is not copied.
  local joined = #payloads == 1 and payloads[1] or table.concat(payloads)
  return {table.concat(lengths, ' '), joined, begun, suffix}
end

for i, kind in ipairs({'list', 'hash', 'zset'}) do
  if not type_is(KEYS[i], kind) then return {'TYPE', KEYS[i]} end
end
if not type_is(fetched, 'zset') then return {'TYPE', fetched} end

-- Sent twice: the names are those of the first time.
local before, begun, suffix = {}, 0, '?'
for i = 1, wanted do
  local found
  for _, state in ipairs({'', '?', '~'}) do
    found = redis.call('HGET', KEYS[2], base .. ':' .. i .. state)
    if found then
      if state == '' then begun = i else suffix = state end
      break
    end
  end
  if not found then break end
  before[i] = found
end
if before[1] then return reply(before, begun, suffix) end
-- Delivered late, when the first of its jobs had left flight: those names are
-- used up. A job under one of them would leave flight with the next command that
-- is repeated for the job before it.
local number = string.match(base, '^%x+$') and #base <= 13 and tonumber(base, 16)
if number then
  if redis.call('ZSCORE', fetched, base) then return reply({}, 0, suffix) end
  local lowest = redis.call('ZRANGE', fetched, -REMEMBERED, -REMEMBERED, 'WITHSCORES')[2]
  if lowest and number < tonumber(lowest) then return reply({}, 0, suffix) end
end

if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then return false end
-- A key of another type pauses nothing.
if KEYS[4] and redis.pcall('SISMEMBER', KEYS[4], string.sub(KEYS[1], 7)) == 1 then return {'PAUSED'} end

begun = tonumber(ARGV[4])
suffix = ARGV[5] == '1' and '~' or '?'
local payloads, size, most = {}, 0, tonumber(ARGV[6])
-- One at a time, since the length of an element is not known before.
while #payloads < wanted and size <= most do
  local payload = redis.call('RPOP', KEYS[1])
  if not payload then break end
  payloads[#payloads + 1] = payload
  if #payloads > 1 then size = size + #payload end
end
local fields = {}
for i, payload in ipairs(payloads) do
  fields[#fields + 1] = base .. ':' .. i .. (i > begun and suffix or '')
  fields[#fields + 1] = payload
end
call_in_slices('HSET', KEYS[2], fields, 1, #fields)
if number and #payloads > 0 then
  redis.call('ZADD', fetched, number, base)
  redis.call('ZREMRANGEBYRANK', fetched, 0, -REMEMBERED - 1)
  redis.call('EXPIRE', fetched, 3600)
end
return reply(payloads, math.min(begun, #payloads), suffix)
-- @file pour.lua
-- Pushes the next part of a committed fan-out: its barriers first, then its jobs in
-- order.  Each call moves elements from the list to where they belong, so it may be
-- sent twice, and by any number of processes at once.
--
-- KEYS: 'swf:fanouts', swf:fanout:ID, 'queues', 'schedule'
-- ARGV: ID, elements at most (2 or more), bytes after which no further ones are taken
-- Returns: {'MORE'} | {'DONE'} nothing is left, or it is not committed
--       | {'TYPE', key} nothing written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

local fanouts, list, QUEUES, SCHEDULE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if not type_is(fanouts, 'zset') then return {'TYPE', fanouts} end
if not redis.call('ZSCORE', fanouts, ARGV[1]) then return {'DONE'} end
if not type_is(list, 'list') then return {'TYPE', list} end

-- Reads. A part: a queue's name, and payloads for it.
local barriers, parts, scheduled, part = {}, {}, {}, nil
local read, bytes, most, most_bytes = 0, 0, tonumber(ARGV[2]), tonumber(ARGV[3])
while read < most and bytes < most_bytes do
  -- As many as may fit, by the size of those before; one element may be large.
  local fit = read > 0 and math.floor((most_bytes - bytes) * read / bytes) or 1
  local wanted = math.max(1, math.min(100, fit, most - read))
  local elements = redis.call('LRANGE', list, read, read + wanted - 1)
  for _, element in ipairs(elements) do
    local kind = string.byte(element)
    bytes = bytes + #element
    if kind == 123 then -- {
      part.payloads[#part.payloads + 1] = element
    elseif kind == 113 then -- q
      part = {name = string.sub(element, 2), payloads = {}}
      parts[#parts + 1] = part
      if not type_is('queue:' .. part.name, 'list') then return {'TYPE', 'queue:' .. part.name} end
    elseif kind == 115 then -- s
      local score, payload = string.match(element, '^s(%S+) (.*)$')
      scheduled[#scheduled + 1] = score
      scheduled[#scheduled + 1] = payload
    else
      local ttl, value, ran, id = string.match(element, '^b(%S+) (%S+) (%S+) (.*)$')
      barriers[#barriers + 1] = {id = id, ttl = ttl, value = value, ran = ran}
    end
  end
  read = read + #elements
  if #elements < wanted then break end
end
if part and not type_is(QUEUES, 'set') then return {'TYPE', QUEUES} end
if #scheduled > 0 and not type_is(SCHEDULE, 'zset') then return {'TYPE', SCHEDULE} end

-- Writes. LTRIM passes when Redis is out of memory, and after it the rest does, too.
redis.call('LTRIM', list, read, -1)
for _, barrier in ipairs(barriers) do
  redis.call('SETEX', barrier.id, barrier.ttl, barrier.value)
  redis.call('SETEX', barrier.id .. '_ran', barrier.ttl, barrier.ran)
end
for _, pushed in ipairs(parts) do
  redis.call('SADD', QUEUES, pushed.name)
  call_in_slices('LPUSH', 'queue:' .. pushed.name, pushed.payloads, 1, #pushed.payloads)
end
call_in_slices('ZADD', SCHEDULE, scheduled, 1, #scheduled)
if redis.call('EXISTS', list) == 1 then
  -- The rest belongs to the queue that was named last.
  if part then redis.call('LPUSH', list, 'q' .. part.name) end
  return {'MORE'}
end
redis.call('ZREM', fanouts, ARGV[1])
return {'DONE'}
-- @file promote.lua
-- Moves due jobs from `schedule` or `retry` to their queues.  A job that cannot be
-- read goes to `dead`: never lost, never in the way.
--
-- KEYS: 'schedule' or 'retry', 'dead', 'queues', per job: queue list
-- ARGV: score in `dead`, per job: the member, queue name ('' = to `dead`),
--       payload to push (or to bury)
-- Returns: {how many members were moved (those taken by others are not),
--       {number of each job (1 = the first) whose queue is not a list},
--       {number of each job that 'dead', 'queues' or the set itself, holding
--       another type, keeps where it is}}; these stay where they are

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end

local readable = type_is(KEYS[1], 'zset')
local can_bury, can_push = readable and type_is(KEYS[2], 'zset'), readable and type_is(KEYS[3], 'set')
local moved, misplaced, stuck = 0, {}, {}
for i = 4, #KEYS do
  local at = 2 + 3 * (i - 4)
  local member, queue, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if queue == '' then
    if not can_bury then
      stuck[#stuck + 1] = i - 3
    elseif redis.call('ZREM', KEYS[1], member) == 1 then
      moved = moved + 1
      redis.call('ZADD', KEYS[2], ARGV[1], payload)
    end
  elseif not can_push then
    stuck[#stuck + 1] = i - 3
  elseif not type_is(KEYS[i], 'list') then
    misplaced[#misplaced + 1] = i - 3
  elseif redis.call('ZREM', KEYS[1], member) == 1 then
    moved = moved + 1
    redis.call('SADD', KEYS[3], queue)
    redis.call('LPUSH', KEYS[i], payload)
  end
end
return {moved, misplaced, stuck}
-- @file read_callbacks.lua
-- Reads steps of a stored chain, and keeps chains alive whose run moves.
--
-- KEYS: swf:callbacks:SHA256 to read from, then others to keep alive only
-- ARGV: ttl in seconds, index of the first step, most steps ('0' = none),
--       bytes after which no further one is read, bytes from which a value is
--       not read here (none given: all are)
-- Returns: the values from that index on; none if there are none; {nil} if the
--       first one is too large for a script: read it by HGET

-- Lets keys live longer, never shorter.  A missing key stays missing.
--
-- prolong(key, ttl): for ttl seconds at least, also a key that had no expiry, since
--       all that belongs to a run expires
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but a
--       key without an expiry keeps none, and one that has up to slack seconds less
--       than ttl is left as it is

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end
-- SLACK: the seconds that a lifetime may fall short.  It saves an EXPIRE for each
-- step of a run: keys are prolonged once an hour.

local SLACK = 3600

local ttl = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do prolong_volatile(key, ttl, SLACK) end
local found, size, large = {}, 0, tonumber(ARGV[5] or math.huge)
for i = tonumber(ARGV[2]), ARGV[2] + ARGV[3] - 1 do
  local index = string.format('%d', i)
  local length = redis.call('HSTRLEN', KEYS[1], index)
  size = size + length
  if #found > 0 and size > tonumber(ARGV[4]) then break end
  if length >= large then
    if #found == 0 then return {false} end
    break
  end
  local value = redis.call('HGET', KEYS[1], index)
  if not value then break end
  found[#found + 1] = value
end
return found
-- @file recover.lua
-- Takes the jobs in flight of a dead worker from it; where each goes depends on how
-- far it had come.
--
--   BASE:I?  not begun: back to its queue, not counted; one that had begun so
--            often before that once more is too often waits for a trial again
--   BASE:I   begun: counted in swf:recovered:JID
--   BASE:I~  perhaps begun: the counter is made, and not raised
--   BASE:I!  counted before, waits for its trial (see trial.lua): stays
--
-- A counted job whose counter is new goes back to its queue.  One that was seen
-- before is a suspect.  Counted too often it goes to `dead` (a poison pill),
-- else it becomes BASE:I! and waits, so that it takes no others along.
--
-- KEYS: swf:workers, in-flight hash, queue list, 'dead',
--       per job: swf:recovered:JID
-- ARGV: member, seconds without a beat, recoveries that are too many, seconds
--       that they are counted for, score in `dead`,
--       per job: receipt, payload for `dead`; those to be taken next come last
-- Returns: {'ALIVE'} nothing written | {'TYPE', key} nothing written
--       | {'DONE', how many are back in the queue, are dead, wait for a trial,
--          {number of each job that is dead (1 = the first)},
--          {number of each job that stays, since `dead` is not a sorted set}};
--       the worker is deregistered when nothing of it is left

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local now = redis.call('TIME')
if score and tonumber(now[1]) + tonumber(now[2]) / 1e6 - tonumber(score) < tonumber(ARGV[2]) then return {'ALIVE'} end
if not type_is(KEYS[2], 'hash') then return {'TYPE', KEYS[2]} end
if not type_is(KEYS[3], 'list') then return {'TYPE', KEYS[3]} end
local can_bury = type_is(KEYS[4], 'zset')

local back, waiting, dead, stay = 0, 0, {}, {}
for i = 5, #KEYS do
  local receipt, corpse = ARGV[6 + 2 * (i - 5)], ARGV[7 + 2 * (i - 5)]
  local state = string.match(receipt, '[?~!]$') or ''
  local payload = state ~= '!' and redis.call('HGET', KEYS[2], receipt)
  if payload then
    local before = redis.pcall('GET', KEYS[i])
    local suspect = type(before) == 'string'
    local count = suspect and string.match(before, '^%d%d?%d?$') and tonumber(before) or 0
    if state == '' then count = count + 1 end
    if state == '?' then suspect = count >= tonumber(ARGV[3]) - 1 end
    local pill = state == '' and count >= tonumber(ARGV[3])
    if pill and not can_bury then
      stay[#stay + 1] = i - 4
    else
      redis.call('HDEL', KEYS[2], receipt)
      if state ~= '?' then redis.call('SET', KEYS[i], count, 'EX', ARGV[4]) end
      if pill then
        redis.call('ZADD', KEYS[4], ARGV[5], corpse)
        dead[#dead + 1] = i - 4
      elseif suspect then
        redis.call('HSET', KEYS[2], string.sub(receipt, 1, #receipt - #state) .. '!', payload)
        waiting = waiting + 1
      else
        redis.call('RPUSH', KEYS[3], payload)
        back = back + 1
      end
    end
  end
end
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'DONE', back, #dead, waiting, dead, stay}
-- @file requeue.lua
-- Puts jobs in flight that were not run back to the end of their queue that is taken
-- from next.
--
-- KEYS: in-flight hash, queue list
-- ARGV: receipts, in the order they were fetched
-- Returns: how many went back (those no longer in flight do not); an error if a key
--       has another type: nothing was written

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end
-- type_error(key, wanted) -> the error reply that names a key of another type

local function type_error(key, wanted)
  local found = redis.call('TYPE', key).ok
  return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', not a ' .. wanted)
end
-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

for i, kind in ipairs({'hash', 'list'}) do
  if not type_is(KEYS[i], kind) then return type_error(KEYS[i], kind) end
end
local receipts, payloads = {}, {}
for i = #ARGV, 1, -1 do
  local payload = redis.call('HGET', KEYS[1], ARGV[i])
  if payload then
    receipts[#receipts + 1] = ARGV[i]
    payloads[#payloads + 1] = payload
  end
end
call_in_slices('HDEL', KEYS[1], receipts, 1, #receipts)
call_in_slices('RPUSH', KEYS[2], payloads, 1, #payloads)
return #receipts
-- @file stage.lua
-- Stages a part of a fan-out that is too large for one script; advance, start, count
-- or release commits the whole (see _plan).
--
-- KEYS: swf:fanout:ID, 'swf:fanouts'
-- ARGV: seconds until a list that is not committed vanishes, ID, how many
--       elements the list has before this part, elements:
--         bTTL VALUE RAN ID  a barrier
--         qNAME              what follows goes to this queue
--         {...               a payload
--         sSCORE {...        a payload for `schedule`
-- Returns: 1, also if the part is there already (sent twice) | 0 the list has
--       vanished, or is committed (this part comes late)

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return 0 end
local length, before, parts = redis.call('LLEN', KEYS[1]), tonumber(ARGV[3]), #ARGV - 3
if length == before + parts then return 1 end
if length ~= before then return 0 end
call_in_slices('RPUSH', KEYS[1], ARGV, 4, #ARGV)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
-- @file store_callbacks.lua
-- Stores the steps of a chain, once, for payloads that refer to them.
--
-- KEYS: swf:callbacks:SHA256, a hash index -> SHA256 of the next value (empty
--       at the end), ':', the step's JSON
-- ARGV: ttl in seconds, the values from index 0 on
-- Returns: 1, or 0 if they are stored already (they then live for the ttl at least)

-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end
-- Lets keys live longer, never shorter.  A missing key stays missing.
--
-- prolong(key, ttl): for ttl seconds at least, also a key that had no expiry, since
--       all that belongs to a run expires
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but a
--       key without an expiry keeps none, and one that has up to slack seconds less
--       than ttl is left as it is

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end

local key, ttl = KEYS[1], tonumber(ARGV[1])
if prolong_volatile(key, ttl, 0) then return 0 end
local fields = {}
for i = 2, #ARGV do
  fields[#fields + 1] = i - 2
  fields[#fields + 1] = ARGV[i]
end
call_in_slices('HSET', key, fields, 1, #fields)
redis.call('EXPIRE', key, ttl)
return 1
-- @file trial.lua
-- Takes one suspect of a dead worker (BASE:I!, see recover.lua) into flight here, so
-- that no other suspect of its queue runs at the same time.
--
-- Call it at each beat for the dead members that hold suspects of a queue that
-- this process consumes, and again when a trial has ended.  The job then runs as
-- any other that was fetched ahead: begin.lua marks that it has begun, and
-- recover.lua counts it if it kills the worker.
--
-- KEYS: swf:workers, in-flight hash of the dead member, in-flight hash of the
--       own member, swf:trial:QUEUE, 'paused'
-- ARGV: dead member, own member, queue name, seconds without a beat that make a
--       worker dead, a receipt base of this process that is used for nothing
--       else, seconds after which a trial that still runs keeps no other back
-- Returns: {'TRIAL', payload} in flight as BASE:1? | {'WAIT'} another trial
--       runs, or the queue is paused | {'NONE'} no suspect, the member lives, or
--       the own one is not registered | {'TYPE', key} nothing written
--
-- Sent twice with the same base it answers the same.  swf:trial:QUEUE holds
-- 'TIME RECEIPT MEMBER' of the last trial: it runs while the job is in flight.

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- whole(text)          -> the number; nil if the text is not a whole number as DECR
--                         and INCRBY take it, and small enough for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function whole(text)
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end

for i, kind in ipairs({'zset', 'hash', 'hash'}) do
  if not type_is(KEYS[i], kind) then return {'TYPE', KEYS[i]} end
end
local receipt = ARGV[5] .. ':1'
local before = redis.call('HGET', KEYS[3], receipt .. '?')
if before then return {'TRIAL', before} end

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or now - tonumber(score) < tonumber(ARGV[4]) then return {'NONE'} end
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return {'NONE'} end
if redis.pcall('SISMEMBER', KEYS[5], ARGV[3]) == 1 then return {'WAIT'} end

local running = redis.pcall('GET', KEYS[4])
if type(running) == 'string' then
  local began, of, member = string.match(running, '^(%S+) (%S+) (.*)$')
  local age = began and tonumber(began) and now - tonumber(began)
  if age and age >= 0 and age < tonumber(ARGV[6]) then
    for _, state in ipairs({'', '?'}) do
      if redis.pcall('HEXISTS', 'swf:inflight:' .. member, of .. state) == 1 then return {'WAIT'} end
    end
  end
end

local suspect
for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.sub(name, -1) == '!' and (not suspect or name < suspect) then suspect = name end
end
if not suspect then return {'NONE'} end
local payload = redis.call('HGET', KEYS[2], suspect)

redis.call('HDEL', KEYS[2], suspect)
redis.call('HSET', KEYS[3], receipt .. '?', payload)
redis.call('SET', KEYS[4], string.format('%.6f ', now) .. receipt .. ' ' .. ARGV[2], 'EX', ARGV[6])
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'TRIAL', payload}
