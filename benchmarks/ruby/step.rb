# frozen_string_literal: true

# The job of the benchmarks, and the gem with its defaults. Loads the real gem if
# SIDEKIQ_WORKFLOW_LIB names it, else the stand-in of interop/ruby/lib.

require "json"
require "/interop/ruby/setup"

Sidekiq::Workflow.configure do |config|
  config.memory = Sidekiq::Workflow::Memory::RedisHashMemory.new(ttl: 86_400, key_prefix: "swf:mem")
end

module Bench
  def self.now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # Answers each line of standard input with one line, a JSON object each. Ends with
  # the input, even while an order waits: the measuring process has died.
  def self.serve
    $stdout.sync = true
    orders = Queue.new
    Thread.new do
      $stdin.each_line { |line| orders << JSON.parse(line) }
      exit!(0)
    end
    loop { puts JSON.generate(yield(orders.pop)) }
  end

  # What the worker counts, and for how long a step sleeps.
  class Meter
    attr_reader :acked, :starts, :last_ack

    def initialize
      @mutex = Mutex.new
      @changed = ConditionVariable.new
      expect({"jobs" => 0, "ms" => 0, "record" => true})
    end

    def expect(order)
      @mutex.synchronize do
        @expected = order["jobs"]
        @record = order["record"]
        @seconds = order["ms"] / 1000.0
        @starts = []
        @acked = 0
        @last_ack = 0.0
        @cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
      end
    end

    # The first line of the job.
    def step(index)
      @starts << [index, Bench.now] if @record
      sleep(@seconds) if @seconds > 0
    end

    def ack
      @mutex.synchronize do
        @acked += 1
        @last_ack = Bench.now
        @changed.signal if @acked == @expected
      end
    end

    def wait(seconds)
      deadline = Bench.now + seconds
      @mutex.synchronize do
        while @acked < @expected && (rest = deadline - Bench.now) > 0
          @changed.wait(@mutex, rest)
        end
      end
    end

    def report
      cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - @cpu
      {"acked" => @acked, "starts" => @starts, "last_ack" => @last_ack, "cpu" => cpu, **Bench.memory}
    end
  end

  METER = Meter.new

  # Resident memory in MB, now and at its peak.
  def self.memory
    status = File.read("/proc/self/status")
    {"rss" => status[/VmRSS:\s+(\d+)/, 1].to_i / 1024.0, "peak" => status[/VmHWM:\s+(\d+)/, 1].to_i / 1024.0}
  end

  class Step
    include Sidekiq::Job
    sidekiq_options queue: "bench"

    # Nothing but a returned hash goes to the run's memory.
    def perform(index, _padding = nil)
      METER.step(index)
      nil
    end
  end
end
