# frozen_string_literal: true

module SidekiqFlow::Web
  # The record of a run, as the scripts write it. Only this class knows its keys.
  class RunRecord
    # The states that a record may have. Runs of the first three may go on.
    STATES = %w[running failed paused cancelled done].freeze
    OPEN = STATES.first(3).freeze

    # The last second of the year 9999.
    MOST_SECONDS = 253_402_300_799

    FIELDS = %w[state started finished total template tags adopted reason].freeze

    # When a step began and ended, in epoch seconds; its failed attempts before, and its process.
    Times = Struct.new(:started, :ended, :attempts, :worker)

    # Why a step is dead; +at+ in epoch seconds.
    Failure = Struct.new(:number, :jid, :name, :queue, :error, :at)

    class << self
      def key(id, part = "")
        "swf:flow:#{id}#{part}"
      end

      # The whole record of a run; nil if there is none.
      def find(id)
        fields, times, bits, failed, added = Sidekiq.redis do |conn|
          conn.pipelined do |pipeline|
            pipeline.call("HGETALL", key(id))
            pipeline.call("HGETALL", key(id, ":times"))
            pipeline.call("GET", key(id, ":done"))
            pipeline.call("HGETALL", key(id, ":failed"))
            pipeline.call("HGETALL", key(id, ":added"))
          end
        end
        fields = pairs(fields)
        return if fields.empty?

        new(id, fields, times: numbered(times), bits: bits, failed: numbered(failed).merge(by_jid(failed)),
          added: numbered(added))
      end

      # The records of runs without their steps; nil for each that is gone.
      def heads(ids)
        return [] if ids.empty?

        replies = Sidekiq.redis do |conn|
          conn.pipelined { |pipeline| ids.each { |id| ask_head(pipeline, id) } }
        end
        ids.zip(replies.each_slice(4)).map do |id, (values, times, bits, failed)|
          # Field 0 of the times is not a step.
          new(id, FIELDS.zip(values).to_h, done: [times - 1, 0].max + bits, dead: failed) if values.first
        end
      end

      # Text of Redis as text that a page can hold.
      def text(value)
        value.to_s.dup.force_encoding(Encoding::UTF_8).scrub
      end

      private

      def ask_head(pipeline, id)
        pipeline.call("HMGET", key(id), *FIELDS)
        pipeline.call("HLEN", key(id, ":times"))
        pipeline.call("BITCOUNT", key(id, ":done"))
        pipeline.call("HLEN", key(id, ":failed"))
      end

      # A hash, or with an older protocol names and values one after the other.
      def pairs(reply)
        reply.is_a?(Hash) ? reply : reply.each_slice(2).to_h
      end

      # The fields whose names are the numbers of steps.
      def numbered(reply)
        pairs(reply).select { |name, _| name.match?(/\A[1-9]\d*\z/) }.transform_keys(&:to_i)
      end

      # The deaths of steps without numbers.
      def by_jid(reply)
        pairs(reply).select { |name, _| name.start_with?("jid:") }.transform_keys { |name| name.delete_prefix("jid:") }
      end
    end

    attr_reader :id, :bits, :done, :dead

    # +bits+: the bitmap of steps that are done; +times+, +failed+ and +added+: step number ->
    # entry, in +failed+ also jid -> entry of a step without a number; +done+ and +dead+:
    # numbers of steps.
    def initialize(id, fields, times: {}, bits: nil, failed: {}, added: {}, done: nil, dead: nil)
      @id = id
      @fields = fields
      @times = times
      @bits = (bits || "").b
      @failed = failed
      @added = added
      @done = done || (times.size + @bits.unpack1("B*").count("1"))
      @dead = dead || failed.size
    end

    def state
      STATES.include?(@fields["state"]) ? @fields["state"] : STATES.first
    end

    def open?
      OPEN.include?(state)
    end

    def started
      seconds(@fields["started"])
    end

    def finished
      seconds(@fields["finished"])
    end

    # Number of steps; nil in a run that was first seen in its middle.
    def total
      Integer(@fields["total"], 10, exception: false) if @fields["total"]
    end

    def template
      text(@fields["template"]) unless @fields["template"].to_s.empty?
    end

    def tags
      read = json(@fields["tags"])
      read.is_a?(Array) ? read.map { |tag| text(tag) } : []
    end

    def reason
      text(@fields["reason"])
    end

    # The tree as JSON; "" without.
    def tree
      text(@fields["tree"])
    end

    # Number of a step -> JSON of the tree that replaced it.
    def added
      @added.transform_values { |value| text(value) }
    end

    # The steps with numbers below 1,000 that are done, and the steps that are dead.
    def timed_numbers
      @times.keys
    end

    def failed_numbers
      @failed.keys.grep(Integer).sort
    end

    # The jids of the steps without numbers that are dead.
    def failed_jids
      @failed.keys.grep(String).sort
    end

    # The Times of a step that is done; nil if they are not known.
    def times(number)
      return unless @times[number]

      started, ended, attempts, worker = text(@times[number]).split(" ", 4)
      Times.new(seconds(started), seconds(ended), attempts.to_i, worker.to_s)
    end

    # The Failure of a step that is dead, by its number or its jid; nil if it is not.
    def failure(step)
      return unless @failed[step]

      number = step if step.is_a?(Integer)
      read = json(@failed[step])
      read = {} unless read.is_a?(Hash)
      name, queue, jid = read.values_at("class", "queue", "jid").map { |value| text(value) }
      Failure.new(number, jid, name, queue, error(read), read["at"].is_a?(Numeric) ? read["at"] : nil)
    end

    # Whether a death was found, and no worker recorded it.
    def inferred?(step)
      read = json(@failed[step])
      read.is_a?(Hash) && read["inferred"] == true
    end

    private

    def error(read)
      read.values_at("error_class", "error_message").map { |part| text(part) }.reject(&:empty?).join(": ")
    end

    def text(value)
      self.class.text(value)
    end

    def json(value)
      JSON.parse(text(value))
    rescue JSON::ParserError
      nil
    end

    def seconds(value)
      number = Float(value, exception: false) if value
      number if number && number.between?(0.001, MOST_SECONDS)
    end
  end
end
