# frozen_string_literal: true

module SidekiqFlow::Companion
  # Starts a run as Python does (workflow/start.py): one script writes its marker, its
  # record, its barriers and its first jobs.
  class Start
    # Seconds that a record is kept after the end of its run.
    KEEP = 7 * 86_400

    class << self
      # false: runs get no records, and are started by the gem. Or a hash: +keep+, the
      # seconds that a record is kept after the end of its run; +args+, false to keep the
      # arguments of steps out of it.
      attr_writer :records

      def records
        @records.nil? ? {} : @records
      end

      # Whether a script can start runs here: not in tests without Redis, and not with
      # barriers of the application.
      def possible?
        records && !testing? && own_barriers?
      end

      # Whether jobs are not pushed to Redis.
      def testing?
        defined?(Sidekiq::Testing) && Sidekiq::Testing.enabled? ? true : false
      end

      private

      def own_barriers?
        settings = Dialect.current.gem.configuration
        !settings.respond_to?(:barrier_class) || settings.barrier_class.name.to_s.end_with?("::AtMostOnceBarrier")
      end
    end

    # tree: in wire form; it gets numbers
    def initialize(tree, run_id:, options:, config:)
      @run_id = run_id
      @options = options
      @config = config
      @numbers = StepNumbers.number(tree)
      @read = Wire.read(tree)
      Tree.check(@read)
      @ttl = Lifetimes.barrier_ttl(tree, [])
      @plan = StartPlan.new(tree, run_id: run_id, config: config)
    end

    # Starts the run. :done; :started, if a run of this id was started before; or
    # Replies::Taken, if another run has the unique key.
    def call
      outcome = send_script while outcome.nil? || outcome == :stage_lost
      pour if outcome == :done && @plan.fanout?
      outcome
    end

    private

    # If Redis is unavailable now, the next heartbeat of any worker does it.
    def pour
      @config.redis { |conn| Fanouts.pour_all(conn, Sidekiq.logger) }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      Trouble.log(Sidekiq.logger, error)
    end

    def send_script
      plan_keys, plan_arguments = @plan.writes
      keys = ["swf:run:#{@run_id}", "", "swf:flow:#{@run_id}", *plan_keys]
      arguments = [@ttl, 0, 0, *record, *plan_arguments]
      Replies.start(run_once(keys, arguments))
    rescue RedisClient::ConnectionError
      # It may have started the run: then the script says so.
      outcome = Replies.start(run_once(keys, arguments))
      outcome == :started ? :done : outcome
    end

    def run_once(keys, arguments)
      @config.redis { |conn| Scripts.run_once(conn, "start", keys, arguments) }
    end

    # As _new_record.lua reads it; a run that Ruby starts cannot be repeated.
    def record
      @record ||= begin
        fields = {"keep" => keep, **tree_fields, **@options.fields, **calls}
        [
          @plan.completes? ? "done" : "running", format("%.3f", Time.now.to_f), @ttl + keep, @numbers.last,
          fields.size, *fields.flatten, @options.lists.size, *@options.lists,
          @options.unique_key.to_s, @options.deadline.to_s, @options.needed? ? 1 : 0, ""
        ]
      end
    end

    def tree_fields
      compact = CompactTree.dump(Wire.with_queues(@read), args: self.class.records.fetch(:args, true))
      {"tree" => compact, "skipped" => (@numbers.skipped if @numbers.skipped.positive?)}.compact
    end

    def calls
      mapping = {"run_id" => @run_id, "template" => @options.template}
      @options.calls.to_h { |name, job| [name, @plan.callback(name, job, mapping)] }
    end

    def keep
      [self.class.records.fetch(:keep, KEEP).to_i, 1].max
    end
  end
end
