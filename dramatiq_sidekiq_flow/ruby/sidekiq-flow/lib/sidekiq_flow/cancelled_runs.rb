# frozen_string_literal: true

module SidekiqFlow::Companion
  # The cancelled and paused runs, as far as this process knows them: their steps do not
  # start.
  # It looks when a step starts, at most once in half a second.
  class CancelledRuns
    # Sorted set: run id by the time of its cancellation or pause.
    LIST = "swf:cancelled"

    # The states of a run whose steps do not start.
    HALTED = %w[cancelled paused].freeze

    # Seconds between two looks.
    INTERVAL = 0.5

    # The most runs that are remembered.
    MOST = 20_000

    def self.current
      @current ||= new
    end

    def initialize
      @lock = Mutex.new
      @known = {}
      @last = nil
      @looked = -Float::INFINITY
    end

    # "cancelled" or "paused" if a step must not start, since its run is; else nil. Logs
    # the first one of each cancelled run.
    def halts(job, config)
      run = Run.id(job)
      return if !run.is_a?(String) || Run.callback?(job)

      # A step that had failed may come out of `dead` long after.
      listed = listed?(run, config)
      return unless listed || job["retry_count"].is_a?(Integer)

      state(run, listed, config).tap { |halted| log(run, job, config) if halted == "cancelled" }
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      # A step runs also if Redis cannot be reached.
      config.logger.debug { "Cancelled runs could not be read: #{error.message}" }
      nil
    end

    private

    def listed?(run, config)
      @lock.synchronize do
        look(config) if now - @looked >= INTERVAL
        @known.key?(run)
      end
    end

    def look(config)
      @looked = now
      from = @last ? "(#{@last}" : "-inf"
      found = config.redis { |conn| conn.call("ZRANGEBYSCORE", LIST, from, "+inf", "WITHSCORES") }
      # Pairs, or with an older protocol one after the other.
      found.flatten.each_slice(2) do |run, score|
        @known[run] ||= false
        @last = score
      end
      @known.shift while @known.size > MOST
    end

    # What the record says; a later run may have the id of one that was cancelled.
    def state(run, listed, config)
      state = config.redis { |conn| conn.call("HGET", "swf:flow:#{run}", "state") }
      return listed ? "cancelled" : nil if state.nil?

      state if HALTED.include?(state)
    end

    def log(run, job, config)
      config.logger.info("Run #{Run.label(job)} was cancelled: its steps do not run") unless @known[run]
      @known[run] = true
    end

    def now
      ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
    end
  end
end
