# frozen_string_literal: true

module SidekiqFlow::Web
  # A page of the list of runs, the newest first.
  class RunList
    # Runs on a page; entries of an index that are read at once, and for one page.
    SIZE = 25
    AT_ONCE = 500
    MOST_READ = 10_000

    # The indexes that a run is in one of.
    STATES = RunRecord::STATES.map { |state| "swf:flows:#{state}" }.freeze

    # The place of a run in the order of the list.
    Place = Struct.new(:started, :id) do
      include Comparable

      def <=>(other)
        [started, id.b] <=> [other.started, other.id.b]
      end
    end

    # The runs of the page, and the id behind which the next one begins: nil at the end.
    attr_reader :runs, :next

    # +after+: id of the last run of the page before.
    def initialize(state: nil, template: nil, tag: nil, after: nil, at_once: AT_ONCE, most_read: MOST_READ)
      @state = state
      @at_once = at_once
      @indexes = [state && "swf:flows:#{state}", template && "swf:flows:template:#{template}",
        tag && "swf:flows:tag:#{tag}"].compact
      @runs = []
      Sidekiq.redis do |conn|
        @conn = conn
        read(after && place(after), most_read)
      end
    end

    private

    # One more than the page has tells whether there is a next page.
    def read(place, left)
      while @runs.size <= SIZE && left.positive? && (found = places(place)).any?
        left -= @at_once
        place = found.last
        inside(found).each_slice(SIZE + 1) do |slice|
          @runs.concat(heads(slice)) if @runs.size <= SIZE
        end
      end
      @next = @runs.size > SIZE ? @runs[SIZE - 1].id : (place.id if left <= 0)
      @runs = @runs.first(SIZE)
    end

    # The next runs of the smallest index, or of those of all states.
    def places(after)
      return entries(smallest, after).first if @indexes.any?

      found = STATES.map { |index| entries(index, after) }
      # Behind the end of one that was not read to its end, others may have more.
      least = found.map { |some, more| some.last if more }.compact.max
      found.flat_map(&:first).uniq.sort.reverse.select { |place| least.nil? || place >= least }
    end

    def smallest
      @smallest ||= @indexes.min_by { |index| @conn.call("ZCARD", index) }
    end

    # Entries of an index behind a place, equal starts in the order of their ids; and
    # whether there may be more.
    def entries(index, after)
      from = after ? after.started : "+inf"
      offset = 0
      loop do
        reply = @conn.call("ZREVRANGEBYSCORE", index, from, "-inf", "WITHSCORES", "LIMIT", offset, @at_once)
        # Pairs, or with an older protocol one after the other.
        found = reply.flatten.each_slice(2).map { |id, score| Place.new(score.to_f, id) }
        behind = after ? found.select { |place| place < after } : found
        return behind, found.size == @at_once if behind.any? || found.size < @at_once

        offset += @at_once
      end
    end

    # Those of some places that are in all indexes.
    def inside(places)
      (@indexes - [@smallest]).inject(places) do |some, index|
        scores = some.empty? ? [] : @conn.call("ZMSCORE", index, *some.map(&:id))
        some.zip(scores).select(&:last).map(&:first)
      end
    end

    # The records of runs; removes those whose record has expired from the indexes.
    def heads(places)
      ids = places.map(&:id)
      records = RunRecord.heads(ids)
      forget(ids.zip(records).select { |_, record| record.nil? }.map(&:first))
      # A run that has just changed its state may be in the index of both.
      records.compact.select { |record| @state.nil? || record.state == @state }
    end

    def forget(ids)
      return if ids.empty?

      (@indexes.any? ? @indexes : STATES).each do |index|
        @conn.call("ZREM", index, *ids)
      end
    rescue RedisClient::CommandError
      nil # this user may not write
    end

    # The place of a run; nil if it is not known.
    def place(id)
      started = @conn.call("HGET", RunRecord.key(id), "started") ||
        @indexes.map { |index| @conn.call("ZSCORE", index, id) }.compact.first
      Place.new(started.to_f, id) if started
    end
  end
end
